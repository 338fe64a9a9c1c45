"""The standalone script of a cell of accelerate: the documented loop, of which a cell takes only the lines that it needs.

The script has the cell's own model, samples and configuration (``template_loop.py``), and none of truestep's code. Without
DeepSpeed the gradient is read by a hook before the optimizer's step, on DeepSpeed out of the optimizer's state
(SGD with momentum keeps b' = mu * b + g, Adam m' = b1 * m + (1 - b1) * g).

Loops: https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation; checkpoints:
https://huggingface.co/docs/accelerate/usage_guides/checkpoint
"""

from __future__ import annotations

from textwrap import indent
from typing import Any

from truestep.fixtures.cell import Cell, CellError
from truestep.fixtures.drivers import _zero
from truestep.fixtures.drivers import accelerate as driver
from truestep.reports.template import Flags, Values, dictionary, needed, take
from truestep.reports.template_loop import END, HEAD, MODEL, flags_of, values_of
from truestep.reports.template_trainer import call, finish

_IMPORTS = r"""
engine            |os.environ["DS_ACCELERATOR"] = "cpu"
                  |import $frameworks
manual            |from contextlib import nullcontext
                  |from accelerate import Accelerator$classes
reload            |$state
util              |from accelerate.utils import $utils
reading           |from deepspeed.utils import safe_get_full_optimizer_state
                  |from torch.utils.data import DataLoader, TensorDataset
                  |
                  |WINDOWS = $windows  # micro-batches per rank of every optimizer step
config            |$config
"""
_SAMPLER = r"""
epoch             |class ByEpoch:  # its order depends on the epoch that it is told, as that of torch's DistributedSampler
epoch             |    epoch = 0
epoch             |    def set_epoch(self, epoch):
epoch             |        self.epoch = epoch
epoch             |    def __len__(self):
epoch             |        return $half
epoch             |    def __iter__(self):
epoch             |        return iter(range(self.epoch % 2 * $half, (self.epoch % 2 + 1) * $half))
epoch             |
engine            |def whole(p):
stage3            |    with deepspeed.zero.GatheredParameters([p]):
stage3            |        return p.detach().double().clone()
engine !stage3    |    return p.detach().double().clone()
engine            |
engine            |def state_of(p):  # what the optimizer keeps of its gradients
engine !reading   |    kept = model.optimizer.state.get(p, {}).get("$key")
reading           |    try:
reading           |        kept = safe_get_full_optimizer_state(p, "$key")
reading           |    except (KeyError, ValueError):  # it is another optimizer
reading           |        kept = None
engine            |    return torch.zeros($shape).double() if kept is None else kept.double().view($shape).clone()
engine            |
"""
_START = r"""
                  |sys.excepthook = lambda *e: os._exit(print("REFUSED by accelerate", *e[:2], flush=True$file) or 2)
joined            |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=$place, world_size=$W)
engine            |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
engine            |deepspeed.init_distributed("gloo", verbose=False)
"""
_PREPARE = r"""
                  |net = make($seed)
more_accumulation |$accumulation
engine            |$plugin
                  |$accelerator
                  |trained[:] = [p for p in net.parameters() if p.requires_grad]
                  |optimizer = $optimizer
linear            |scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 16)
!engine           |optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append((
!engine           |    [(0 * p if p.grad is None else p.grad).double() for p in trained], optimizer.param_groups[0]["lr"])))
                  |data = TensorDataset(*map(torch.cat, zip(*map(samples, range($batches)))))
shuffled          |torch.manual_seed($shuffle)  # nobody has called accelerate.utils.set_seed: every process has its own seed
                  |$loader
                  |$prepared = accelerator.prepare($given)
registered        |accelerator.register_for_checkpointing(scheduler)
"""
_READY = r"""
                  |plain = make($first_seed).double()  # the reference
                  |ours = {name: p for name, p in plain.named_parameters() if p.requires_grad}
!engine           |seen, trained = [], []  # (gradient, learning rate) of every step of the optimizer; the parameters
engine            |trained = []
"""
_LOOP = r"""
swapped           |print("the optimizer that was given: $kind, the one that trains:", type(model.basic_optimizer).__name__)
engine            |old, wrong = [torch.zeros_like(p) for p in ours.values()], False
!engine           |wrong = False
single            |stream = iter(loader)
                  |for step, window in enumerate(WINDOWS):
reload            |    if step == $after:  # save, begin anew in a model with other weights, load, go on with the micro-batches that are left
reload            |        accelerator.save_state(f"{folder.name}/state")
reload            |        AcceleratorState._reset_state(True), GradientState._reset_state()  # as in a new process
reload            |        $parts = build($other_seed)
reload            |        accelerator.load_state(f"{folder.name}/state")
epoch reload      |        loader.set_epoch($number)
reload            |        stream = iter($skipped)
reload inside     |    elif step % $per_pass == 0:
reload inside     |        stream = iter(loader)
reload !inside    |    if step % $per_pass == 0:
reload !inside    |        stream = iter(loader)
passes            |    if step % $per_pass == 0:
passes            |        stream = iter(loader)
each              |    stream = iter(loader)
engine            |    before, rate = [whole(p) for p in trained], model.get_lr()[0]
!engine           |    before, seen[:] = [p.detach().double().clone() for p in trained], []
loaded            |    parts = [next(stream) for _ in range(window)]  # the window is loaded first
loaded summed     |    items = accelerator.gather($gathered).sum()  # of the whole window
direct summed     |    $row = samples(step$modulo)
direct summed     |    items = $items  # of the whole window, over all ranks
manual            |    for i, ($row) in enumerate(parts):
manual            |        apart = i < window - 1 and accelerator.num_processes > 1
manual            |        with model.no_sync() if apart else nullcontext():
manual            |            loss = loss_of($output, y, counts) $scaled
manual            |            accelerator.backward(loss)
manual limited    |    norm = accelerator.clip_grad_norm_(model.parameters(), $limit)
manual            |    optimizer.step()
manual linear     |    scheduler.step()
manual            |    optimizer.zero_grad()
accumulate        |    for $row in $stream:
accumulate        |        with accelerator.accumulate(model):
accumulate        |            loss = loss_of($output, y, counts) $scaled
accumulate        |            accelerator.backward(loss)
accumulate limited|            if accelerator.sync_gradients:
accumulate limited|                norm = accelerator.clip_grad_norm_(model.parameters(), $limit)
accumulate        |            optimizer.step()
accumulate guarded|            if accelerator.sync_gradients:
accumulate guarded|                scheduler.step()
accumulate linear !guarded|            scheduler.step()
accumulate        |            optimizer.zero_grad()
direct !each      |    if (step + 1) % $per_pass == 0:
direct !each      |        next(stream, None)  # as a loop "for ... in loader" ends
direct each       |    next(stream, None)  # as a loop "for ... in loader" ends
engine            |    new = [state_of(p) for p in trained]
engine sgd        |    got, old = [b - 0.5 * a for a, b in zip(old, new)], new  # SGD with momentum 0.5 keeps b' = 0.5 * b + g
engine !sgd       |    got, old = [8 * b - 7 * a for a, b in zip(old, new)], new  # Adam keeps m' = 0.875 * m + 0.125 * g
!engine           |    got, rate = seen[-1] if seen else ([torch.zeros_like(p) for p in ours.values()], optimizer.param_groups[0]["lr"])
!engine           |    if len(seen) != 1:
!engine           |        print(f"step {step + 1}: the optimizer stepped {len(seen)} times in one window")
                  |    want = gradient(step, before)
limited           |    total = sum(w.square().sum() for w in want).sqrt()
limited engine    |    norm = total if norm is None else norm  # not every stage of ZeRO tells it
limited           |    if not abs(norm - total) <= 1e-5 * total:
limited           |        wrong = not print(f"step {step + 1}: clip_grad_norm_ returned {norm}, the norm is {total:.7g}  <- WRONG")
limited           |    want = [w * min(1.0, $limit / (total + 1e-6)) for w in want]
                  |    wrong |= check(f"step {step + 1}: gradient", got, want)
linear            |    asked = $lr * (1 - step / 16)
linear            |    if abs(rate / asked - 1) > 1e-9:
linear            |        error = f"is off by {abs(rate / asked - 1):.3g}  <- WRONG"
linear            |        wrong = not print(f"step {step + 1}: learning rate {rate:.4g} for {asked:.4g}", error)
"""


def script(cell: Cell) -> str:
    """The source of the script."""
    if not driver.possible(cell):
        raise CellError(f"no standalone script: accelerate offers no cell {cell.id}")
    flags = _flags(cell)
    values = values_of(cell, flags) | _values(cell, flags)

    def some(template: str) -> str:
        return take(template, flags, values)

    prepare = some(_PREPARE)
    if flags["reload"]:
        returns = f"    return {values['parts']}\n"
        prepare = f"def build(seed):\n{indent(prepare, '    ')}{returns}\n{values['parts']} = build({values['first_seed']})\n"
    functions = some(MODEL), some(_SAMPLER)
    return finish(some(HEAD), some(_IMPORTS), *functions, some(_START), some(_READY), prepare, some(_LOOP), some(END))


def _flags(cell: Cell) -> Flags:
    f, split = cell.facts(), cell.split
    engine, several = f["engine"] == "deepspeed", split.world_size > 1
    reload = f["checkpoint"] == "reload"
    utils = engine or f["sync_with_dataloader"] == "false" or f["sync_each_batch"] == "true"
    per_pass = _per_pass(cell)
    return {
        **flags_of(cell),
        "engine": engine,
        "joined": engine or several,
        "folder": engine or several or reload,
        "stage3": engine and f["stage"] == 3,
        "reading": engine and f["stage"] > 0,
        "more_accumulation": bool(_accumulation(cell)),
        "config": engine and f["config"] == "file",
        "util": utils,
        "sgd": f["optimizer"] == "sgd",
        "swapped": engine and f["config"] == "plugin" and f["offload_optimizer"] == "cpu",
        "linear": f["schedule"] == "linear",
        "guarded": f["schedule"] == "linear" and (f["scheduler"], f["step_scheduler_with_optimizer"]) != ("prepared", "true"),
        "registered": f["schedule"] == "linear" and f["scheduler"] == "own" and reload,
        "shuffled": f["sampler"] in ("random", "seedable"),
        "epoch": f["sampler"] == "epoch",
        "reload": reload,
        "inside": reload and f["sampler"] == "epoch",
        "accumulate": f["via"] != "no_sync",
        "manual": f["via"] == "no_sync",
        "loaded": f["via"] != "accumulate",
        "direct": f["via"] == "accumulate",
        "single": per_pass == split.steps > 1 and not reload,
        "each": per_pass == 1 and not reload,
        "passes": 1 < per_pass < split.steps and not reload,
        "summed": f["loop"] == "documented",
        "limited": f["clipping"] in ("tight", "loose"),
    }


def _values(cell: Cell, flags: Flags) -> Values:
    f, split = cell.facts(), cell.split
    engine, ranks, linear, used = flags["engine"], flags["ranks"], flags["linear"], ", used" * flags["unused"]
    per_pass = _per_pass(cell)
    after = split.steps - 1 if flags["epoch"] else 1
    number, into = divmod(after, per_pass)
    skipped = sum(split.windows[number * per_pass : after]) if into else 0
    settings = driver.SGD if flags["sgd"] else driver.ADAM
    prepared = ["model", "optimizer", "loader"] + ["scheduler"] * (linear and f["scheduler"] == "prepared")
    modules = {"itertools": flags["direct"], "os": True, "sys": True, "tempfile": flags["folder"]}
    frameworks = {"accelerate": True, "deepspeed": engine, "torch": True, "transformers": flags["lm"]}
    counted = sum(split.samples(s) for s in range(split.steps // split.epochs))
    items = "counts.sum()" if cell.objective == "token_mean" else "len(counts)"
    every = f"sum({items} for x, y, counts{used} in parts)"
    return {
        "name": driver.NAME,
        "version": driver.version() or "?",
        "packages": ", ".join(needed(frameworks)),
        "modules": ", ".join(needed(modules)),
        "frameworks": ", ".join(needed(frameworks)),
        "rank": "str(rank)" if ranks else '"0"',
        "place": "rank" if ranks else "0",
        "file": ", file=sys.__stdout__" * ranks,
        "classes": ", DataLoaderConfiguration" * bool(_data(cell))
        + ", DistributedDataParallelKwargs" * _finds_unused(cell)
        + ", InitProcessGroupKwargs" * engine,
        "utils": ", ".join(needed({"DeepSpeedPlugin": engine, "GradientAccumulationPlugin": bool(_accumulation(cell))})),
        "state": "from accelerate.state import AcceleratorState, GradientState",
        "config": dictionary("CONFIG = {", _config(cell), 120) if flags["config"] else "",
        "half": str(counted // 2),
        "key": "momentum_buffer" if flags["sgd"] else "exp_avg",
        "shape": "p.ds_shape" if flags["stage3"] else "p.shape",
        "accelerator": _accelerator(cell),
        "accumulation": call(
            "accumulation = GradientAccumulationPlugin", {"num_steps": _steps(cell), **_accumulation(cell)}, {}
        ),
        "plugin": _plugin(cell) if engine else "",
        "kind": "SGD" if flags["sgd"] else "AdamW",
        "optimizer": f"torch.optim.{'SGD' if flags['sgd'] else 'AdamW'}(trained, "
        + ", ".join(f"{k}={v!r}" for k, v in settings.items())
        + ")",
        "lr": repr(settings["lr"]),
        "batches": str(split.steps // split.epochs),
        "shuffle": f"{100 * cell.seed}" + " + rank" * ranks,
        "loader": f"loader = DataLoader(data, batch_size={_size(cell)}"
        + ", shuffle=True" * flags["shuffled"]
        + ", sampler=ByEpoch()" * flags["epoch"]
        + ")",
        "prepared": ", ".join(prepared),
        "given": ", ".join(["net", *prepared[1:]]),
        "seed": "seed" if flags["reload"] else str(cell.seed + 1),
        "first_seed": str(cell.seed + 1),
        "other_seed": str(cell.seed + 101),
        "parts": "accelerator, model, optimizer, loader" + ", scheduler" * linear,
        "after": str(after),
        "number": str(number),
        "skipped": f"accelerator.skip_first_batches(loader, {skipped})" if skipped else "loader",
        "per_pass": str(per_pass),
        "stream": "parts" if flags["loaded"] else "itertools.islice(stream, window)",
        "output": "model(input_ids=x, use_cache=False)" if flags["lm"] else f"model(x{used})",
        "gathered": every if cell.objective == "token_mean" else f"torch.tensor({every})",
        # accelerate divides a loss by the accumulation steps, and gradients are averaged over the processes
        "scaled": f"* {max(split.windows)} * accelerator.num_processes / items" if flags["summed"] else f"/ {items}",
        "limit": repr(driver.MAX_NORM[f["clipping"]]),
        "final": "map(whole, trained)" if engine else "trained",
    }


def _per_pass(cell: Cell) -> int:
    """Optimizer steps of one pass over the loader."""
    return cell.split.steps // (2 if cell.knob("sampler") == "epoch" else cell.split.epochs)


def _size(cell: Cell) -> int:
    """Samples of a batch of the loader: of all ranks together where accelerate splits it."""
    together = cell.split.samples(0) // cell.split.windows[0]
    return together if cell.knob("split_batches") == "true" else together // cell.split.world_size


def _finds_unused(cell: Cell) -> bool:
    return cell.model == "mlp_unused" and cell.knob("engine") == "none"


def _data(cell: Cell) -> dict[str, Any]:
    asked = {
        "split_batches": cell.knob("split_batches") == "true",
        "dispatch_batches": cell.knob("dispatch_batches") == "true",
        "use_seedable_sampler": cell.knob("sampler") == "seedable",
    }
    return {name: True for name, value in asked.items() if value}


def _accumulation(cell: Cell) -> dict[str, Any]:
    """What only GradientAccumulationPlugin can say."""
    found: dict[str, Any] = {}
    if cell.knob("sync_with_dataloader") == "false":
        found["sync_with_dataloader"] = False
    if cell.knob("sync_each_batch") == "true":
        found["sync_each_batch"] = True
    return found


def _steps(cell: Cell) -> int:
    """The accumulation steps that the Accelerator is told."""
    return 1 if cell.knob("gas") == "config" else max(cell.split.windows)


def _accelerator(cell: Cell) -> str:
    """The Accelerator that a user makes."""
    f, engine = cell.facts(), cell.knob("engine") == "deepspeed"
    given = {"cpu": "True"} if not engine else {"deepspeed_plugin": "plugin"}
    if _accumulation(cell):
        given["gradient_accumulation_plugin"] = "accumulation"
    else:
        given["gradient_accumulation_steps"] = str(_steps(cell))
    if _data(cell):
        given["dataloader_config"] = call("DataLoaderConfiguration", _data(cell), {})
    if f["step_scheduler_with_optimizer"] == "false":
        given["step_scheduler_with_optimizer"] = "False"
    if engine:
        given["kwargs_handlers"] = '[InitProcessGroupKwargs(backend="gloo")]'
    elif _finds_unused(cell):
        given["kwargs_handlers"] = "[DistributedDataParallelKwargs(find_unused_parameters=True)]"
    return call("accelerator = Accelerator", {}, given)


def _plugin(cell: Cell) -> str:
    f = cell.facts()
    if f["config"] == "file":
        return "plugin = DeepSpeedPlugin(hf_ds_config=CONFIG)"
    clip = {} if f["clipping"] == "unset" else {"gradient_clipping": driver.MAX_NORM[f["clipping"]] or 0.0}
    offload = {} if f["offload_optimizer"] == "none" else {"offload_optimizer_device": f["offload_optimizer"]}
    return call(
        "plugin = DeepSpeedPlugin", {"gradient_accumulation_steps": f["K"], "zero_stage": f["stage"], **offload, **clip}, {}
    )


def _config(cell: Cell) -> dict[str, Any]:
    """A DeepSpeed configuration."""
    f = cell.facts()
    zero: dict[str, Any] = {"stage": f["stage"], **_zero.sizes(f["stage"])}
    found: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto" if f["gas"] == "accelerator" else f["K"], "zero_optimization": zero,
    }  # fmt: skip
    if f["clipping"] != "unset":
        found["gradient_clipping"] = driver.MAX_NORM[f["clipping"]] or 0.0
    if f["offload_optimizer"] == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
        found["zero_force_ds_cpu_optimizer"] = False  # else accelerate exchanges the optimizer for DeepSpeed's own
    return found
