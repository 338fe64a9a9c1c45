"""The standalone script of a cell of PyTorch itself: a plain loop, or the same with DistributedDataParallel or FSDP2.

The script has the cell's own model and samples (``template_loop.py``) and a loop of its own. It takes the cells in
float32 without a checkpoint: in half precision the rounding of the model would need a reference of its own.

Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html (``no_sync``) and
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html (``set_requires_gradient_sync``)
"""

from __future__ import annotations

from truestep.fixtures.cell import Cell, CellError, deal
from truestep.fixtures.drivers import torch as driver
from truestep.reports.template import Flags, Values, needed, take
from truestep.reports.template_loop import END, HEAD, MODEL, flags_of, values_of
from truestep.reports.template_trainer import finish

_IMPORTS = r"""
                  |import $frameworks
manual            |from contextlib import nullcontext
mesh              |from torch.distributed.device_mesh import init_device_mesh
fsdp              |from torch.distributed.fsdp import $policy
ddp               |from torch.nn.parallel import DistributedDataParallel
                  |
                  |# samples of the micro-batches of every step$turns
                  |SIZES = $sizes
"""
_START = r"""
fsdp              |def full(tensor):
fsdp              |    tensor = tensor.detach()
fsdp              |    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).double().clone()
!fsdp             |def full(tensor):
!fsdp             |    return tensor.detach().double().clone()
                  |
                  |sys.excepthook = lambda *e: os._exit(print("REFUSED by torch", *e[:2], flush=True$file) or 2)
joined            |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=$place, world_size=$W)
                  |plain = make($seed).double()  # the reference
                  |ours = {name: p for name, p in plain.named_parameters() if p.requires_grad}
                  |net = make($seed)
ddp               |model = DistributedDataParallel(net$find)
own               |model = net
fsdp              |policy = {"mesh": init_device_mesh("cpu", ($W,))$options}
offload           |policy["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
fsdp              |for block in $blocks:
fsdp              |    fully_shard(block, **policy)
fsdp              |model = fully_shard(net, **policy)
fsdp unused       |model.set_reduce_scatter_unused_params(True)  # the ranks use different parameters
                  |trained, seen = [p for p in net.parameters() if p.requires_grad], []
grouped           |groups = [{"params": [p for p in trained if (p.dim() > 1) == matrix], "weight_decay": $decay * matrix}
grouped           |          for matrix in (True, False)]  # spares biases and norms
                  |optimizer = $optimizer
                  |optimizer.register_step_pre_hook(lambda *_: seen.append(
                  |    [full(torch.zeros_like(p) if p.grad is None else p.grad) for p in trained]))
linear            |scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 16)
                  |wrong = False
"""
_LOOP = r"""
                  |for step, sizes in enumerate(SIZES):
                  |    parts = torch.arange(sum(sizes)).split(sizes)$mine
                  |    before = [full(p) for p in trained]
                  |    $row = samples(step$modulo)
                  |    items = $items  # of the whole step, over all ranks
                  |    for i, rows in enumerate(parts):
fsdp last         |        model.set_requires_gradient_sync(i == len(parts) - 1)
ddp last          |        with nullcontext() if i == len(parts) - 1 else model.no_sync():
ddp last          |            loss = loss_of($output, y[rows], counts[rows]) * $W / items  # ranks are averaged
ddp last          |            loss.backward()
single            |        loss = loss_of($output, y[rows], counts[rows])$ways / items$averaged
single            |        loss.backward()
own ranks         |    for p in trained:
own ranks         |        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
own ranks         |        torch.distributed.all_reduce(p.grad)
limited           |    norm = full(torch.nn.utils.clip_grad_norm_(trained, $limit))
                  |    optimizer.step()
linear            |    scheduler.step()
                  |    optimizer.zero_grad()
                  |    want = gradient(step, before)
limited           |    total = sum(w.square().sum() for w in want).sqrt()
limited           |    if not abs(norm - total) <= 1e-5 * total:
limited           |        wrong = not print(f"step {step + 1}: clip_grad_norm_ returned {norm:.7g}, the norm is {total:.7g}  <- WRONG")
limited           |    want = [w * min(1.0, $limit / (total + 1e-6)) for w in want]
                  |    wrong |= check(f"step {step + 1}: gradient", seen[-1], want)
"""


def script(cell: Cell) -> str:
    """The source of the script."""
    f = cell.facts()
    if not driver.possible(cell):
        raise CellError(f"no standalone script: the torch driver offers no cell {cell.id}")
    if cell.device != "cpu" or f["dtype"] != "fp32" or f["loss_scale"] != "none":
        raise CellError("no standalone script for torch cells on a GPU, in half precision or with a loss scale yet")
    if f["checkpoint"] == "reload" or not (cell.model.startswith("mlp") or cell.model in ("llama", "qwen2")):
        raise CellError("no standalone script for torch cells with a checkpoint, or with heads of transformers, yet")
    if cell.objective not in ("token_mean", "sequence_mean"):
        raise CellError(f"no standalone script for torch cells with the objective {cell.objective} yet")
    flags = _flags(cell)
    values = values_of(cell, flags) | _values(cell, flags)
    parts = (HEAD, _IMPORTS, MODEL, _START, _LOOP, END)
    return finish(*(take(template, flags, values) for template in parts))


def _flags(cell: Cell) -> Flags:
    f, ranks = cell.facts(), cell.split.world_size > 1
    how = f["parallel"]
    last = f["sync"] == "last" and max(cell.split.windows) > 1
    return {
        **flags_of(cell),
        "own": how == "plain",
        "ddp": how == "ddp",
        "fsdp": how.startswith("fsdp2"),
        "mesh": how.startswith("fsdp2"),
        "joined": ranks or how != "plain",
        "folder": ranks or how != "plain",
        "last": last,
        "manual": how == "ddp" and last,
        "single": not (how == "ddp" and last),
        "offload": how == "fsdp2_offload",
        "grouped": f["weight_decay"] != "all",
        "linear": f["schedule"] == "linear",
        "limited": f["clipping"] != "off",
    }


def _values(cell: Cell, flags: Flags) -> Values:
    f, split, ranks = cell.facts(), cell.split, flags["ranks"]
    sgd = f["optimizer"] == "sgd"
    settings = driver.SGD if sgd else driver.ADAM
    options = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "weight_decay" or f["weight_decay"] == "all")
    given = "groups" if flags["grouped"] else "trained"
    more = f', "reshard_after_forward": {f["reshard"] == "true"}' * (f["reshard"] != "unset")
    sizes = [[len(rows) for k in zip(*deal(split, s), strict=True) for rows in k] for s in range(split.steps)]
    used = ", used[rows]" * flags["unused"]
    divided = ranks and not flags["own"]
    return {
        "name": "torch",
        "version": driver.version() or "?",
        "packages": ", ".join(needed({"torch": True, "transformers": flags["lm"]})),
        "modules": ", ".join(needed({"os": True, "sys": True, "tempfile": flags["folder"]})),
        "frameworks": ", ".join(needed({"torch": True, "transformers": flags["lm"]})),
        "policy": "CPUOffloadPolicy, fully_shard" if flags["offload"] else "fully_shard",
        "rank": "str(rank)" if ranks else '"0"',
        "place": "rank" if ranks else "0",
        "file": ", file=sys.__stdout__" * ranks,
        "sizes": repr(sizes),
        "turns": ", which the ranks take by turns" * ranks,
        "mine": f"[rank :: {split.world_size}]" * ranks,
        "seed": str(cell.seed + 1),
        "find": ", find_unused_parameters=True" * flags["unused"],
        "options": more,
        "blocks": "net.model.layers" if flags["lm"] else "(net.first, net.last)",
        "optimizer": f"torch.optim.{'SGD' if sgd else 'AdamW'}({given}, {options})",
        "output": "model(input_ids=x[rows], use_cache=False)" if flags["lm"] else f"model(x[rows]{used})",
        "ways": f" * {split.world_size}" * divided,
        "averaged": "  # ranks are averaged" * divided,
        "decay": repr(driver.ADAM["weight_decay"]),
        "limit": repr(driver.MAX_NORM[f["clipping"]]),
        "final": "map(full, trained)",
    }
