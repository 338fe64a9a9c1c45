"""What the scripts of OpenRLHF's command lines share: the stand-ins, the watch on the engine, the model, the comparison.

Model and samples are those of the cell, drawn anew by a few lines of the script, so that its figure is the verdict's. The arguments
are those that a user would type; what a CPU lacks is replaced in the open, as in the driver.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import _openrlhf, _openrlhf_offline, versions_of
from truestep.fixtures.drivers import openrlhf as driver
from truestep.fixtures.heads import HEADS
from truestep.reports.repro_transformers import config_of
from truestep.reports.template import Flags, Values

HEAD = r'''
               |"""OpenRLHF $version, DeepSpeed $deepspeed: $id
               |
               |Compares the gradient that the optimizer consumed with plain PyTorch's: the mean over all $units of a step.
               |Run: python this_file.py (openrlhf, deepspeed, transformers, datasets; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
               |import argparse, json, os, runpy, sys, tempfile, types
               |from importlib.machinery import ModuleSpec
               |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
!ranks         |rank = 0
ranks          |rank = next((r for r in range(1, $W) if os.fork() == 0), 0)  # this process is rank 0, its children are the others
ranks          |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
               |os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK="-1", WORLD_SIZE="$W", HF_HUB_OFFLINE="1",
               |                  MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
               |import datasets, deepspeed, torch, transformers
logsigmoid     |from torch.nn.functional import logsigmoid
               |from tokenizers import Tokenizer, models, pre_tokenizers
               |
               |# What a CPU lacks, and nothing of the step: the device, attention over packed samples, float32 among the choices.
               |torch.cuda.current_device = lambda: torch.device("cpu")
               |for name in ("set_device", "synchronize", "empty_cache"):
               |    setattr(torch.cuda, name, lambda *_: None)
               |for name in ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed"):
               |    sys.modules[name] = stub = types.ModuleType(name)
               |    stub.__dict__.update(dict.fromkeys(("index_first_axis", "pad_input", "rearrange", "unpad_input", "all_gather")),
               |                         __path__=[], __spec__=ModuleSpec(name, None), __version__="0")
               |import torch.distributed.device_mesh as device_mesh
               |mesh, add = device_mesh.init_device_mesh, argparse._ActionsContainer.add_argument
               |device_mesh.init_device_mesh = lambda _, *given, **named: mesh("cpu", *given, **named)
               |def with_fp32(self, *given, **named):
               |    if "param_dtype" in str(given):
               |        named["choices"] = [*named["choices"], "fp32"]
               |    return add(self, *given, **named)
               |argparse._ActionsContainer.add_argument = with_fp32
               |import openrlhf.utils.utils as utils
               |if hasattr(utils, "convert_to_torch_dtype"):
               |    dtype_of = utils.convert_to_torch_dtype
               |    utils.convert_to_torch_dtype = lambda name: torch.float32 if name == "fp32" else dtype_of(name)
               |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
               |mapped = datasets.Dataset.map  # in one process
               |datasets.Dataset.map = lambda self, *given, **named: mapped(self, *given, **{**named, "num_proc": None})
               |import openrlhf.utils.distributed_sampler as sampling
               |sampler = sampling.DistributedSampler.__init__  # in order, so that the samples of a step are known
               |sampling.DistributedSampler.__init__ = lambda self, *given, **named: sampler(self, *given, **{**named, "shuffle": False})
               |
               |def refuse(kind, error, trace):
               |    print("REFUSED by openrlhf", kind.__name__, error, flush=True, file=sys.__stdout__)
               |    os._exit(2)
               |sys.excepthook = refuse
ranks          |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=$W)
!ranks         |torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
               |
               |def text(ids):
               |    return " ".join(f"<{i}>" for i in ids)
               |
               |def whole(p):  # a parameter, on every rank
stage3         |    with deepspeed.zero.GatheredParameters([p]):
stage3         |        return p.detach().double()
!stage3        |    return p.detach().double().clone()
               |
               |def moment(engine, p):  # Adam's first, of the whole parameter
stage0         |    return engine.optimizer.state[p]["exp_avg"].double().clone()
!stage0        |    return deepspeed.utils.safe_get_full_optimizer_state(p, "exp_avg").double().view(getattr(p, "ds_shape", p.shape)).clone()
               |
               |$config
               |def make(seed):  # random, and so wide that losses differ
               |    torch.manual_seed(seed)
               |    model = transformers.$cls(config)
               |    for p in model.parameters():
               |        if p.dim() > 1:
               |            p.data.normal_(std=$spread)
               |        elif (p == 1).all():
               |            p.data += 0.1 * torch.randn_like(p)
               |        else:
               |            p.data.normal_(std=0.2)
               |    return model
!refers        |net = make($seed)
refers         |net, reference = make($seed), make($other)
               |
               |seen, losses, logs, initialize = [], [], [], deepspeed.initialize
               |def watched(*given, **named):  # what the command line trains, before and after every optimizer step
refers         |    if named.get("optimizer") is None and "optimizer" not in named["config"]:  # the reference model
refers         |        return initialize(*given, **named)
head           |    head = named["model"].score.weight  # a new one: the samples' own weights in its place
head           |    with torch.no_grad(), deepspeed.zero.GatheredParameters([head], modifier_rank=0, enabled=hasattr(head, "ds_id")):
head stage3    |        if rank == 0:
head stage3    |            head.copy_(net.score.weight)
head !stage3   |        head.copy_(net.score.weight)
               |    made = initialize(*given, **named)
               |    engine, step, backward = made[0], made[0].step, made[0].backward
               |    params = [dict(engine.module.named_parameters())[name] for name, _ in net.named_parameters()]
               |    before = [[whole(p) for p in params]]
               |    def stepped(*given, **named):
               |        boundary = engine.is_gradient_accumulation_boundary()
               |        step(*given, **named)
               |        if boundary:
linked         |            for i, group in enumerate(engine.optimizer.bit16_groups):  # read a second group's state, too
linked         |                deepspeed.utils.lazy_init_hp_params_optimizer_state(
linked         |                    group, engine.optimizer.single_partition_of_fp32_groups[i], engine.optimizer.optimizer.state)
               |            loss = torch.tensor(sum(losses) / len(losses), dtype=torch.double)
ranks          |            torch.distributed.all_reduce(loss)
               |            seen.append((before[-1], [moment(engine, p) for p in params], float(loss)$mean, engine.get_global_grad_norm()))
               |            before.append([whole(p) for p in params])
               |            losses.clear()
               |    def went_back(loss, *given, **named):
               |        losses.append(float(loss.detach()))
               |        return backward(loss, *given, **named)
               |    engine.step, engine.backward = stepped, went_back
               |    return made
               |deepspeed.initialize = watched
logged         |from openrlhf.trainer.$module import $trainer as Trainer
logged         |save = Trainer.save_logs_and_checkpoints
logged         |def logging(self, args, step, bar, told, *rest, **named):
logged         |    logs.append(told.get("loss_mean", told.get("$told")))  # releases without a mean log what the last micro-batch had
logged         |    return save(self, args, step, bar, told, *rest, **named)
logged         |Trainer.save_logs_and_checkpoints = logging
               |
               |words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
               |words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
               |tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>")
'''
TAIL = r'''
               |
               |samples = []  # of an epoch, in the order of the data, which the ranks take in turns
               |for m in range($micro):
               |    every = draw(m // $K)
               |    samples += [every[(m % $K * $W + r) * $size + j] for j in range($size) for r in range($W)]
               |if rank == 0:
               |    net.save_pretrained(f"{folder.name}/model")
               |    tokenizer.save_pretrained(f"{folder.name}/model")
refers         |    reference.save_pretrained(f"{folder.name}/reference")
refers         |    tokenizer.save_pretrained(f"{folder.name}/reference")
               |    with open(f"{folder.name}/data.jsonl", "w") as file:
               |        file.writelines(json.dumps(row_of(*sample)) + "\n" for sample in samples)
               |datasets.config.HF_DATASETS_CACHE = folder.name
ranks          |torch.distributed.barrier()
               |sys.argv = ["$command"] + """
               |$typed
               |""".replace("FOLDER", folder.name).split()
               |runpy.run_module("openrlhf.cli.$command", run_name="__main__")
               |
!refers        |exact = net.double()
refers         |exact, plain = net.double(), reference.double()
               |def off(what, error, where="", limit=1e-5):
               |    print(f"the {what} is off by {error:.3g}{where}" + ("" if error <= limit else "  <- WRONG"))
               |    return not error <= limit
               |
               |wrong, old = len(seen) != $steps, [0.0] * len([*exact.parameters()])
               |for step, (before, after, loss, norm) in enumerate(seen):
               |    for p, value in zip(exact.parameters(), before):
               |        p.data = value
               |    blocks = [range((step * $K + k) * $block, (step * $K + k + 1) * $block) for k in range($K)]  # of all ranks
               |    parts = [[samples[i % len(samples)] for i in block[r::$W]] for r in range($W) for block in blocks]  # the micro-batches
               |    terms = [loss_of(part) for part in parts]
               |    count, true = sum(n for _, n in terms), float(sum(t.detach() for t, _ in terms)) / sum(n for _, n in terms)
               |    each = [torch.autograd.grad(t / count, [*exact.parameters()]) for t, _ in terms]
               |    got, old = [(a - $b1 * o) / (1 - $b1) for a, o in zip(after, old)], after
               |    want = [sum(shares) for shares in zip(*each)]
               |    total = float(sum(w.square().sum() for w in want) ** 0.5)
clip           |    got = [g / min(1.0, $max_norm / (total + 1e-6)) for g in got]  # as it was before it was clipped
               |    columns, column = [torch.cat([t.flatten() for t in ts]) for ts in each], torch.cat([g.flatten() for g in got])
               |    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(columns, 1)) @ column).tolist()]  # least squares
               |    print(f"step {step + 1}: effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
               |    errors = sorted(((float(((g - w).norm() / max(w.norm(), total / 1024)).nan_to_num(float("inf"))), n)
               |                     for g, w, (n, _) in zip(got, want, exact.named_parameters())), reverse=True)
               |    others = ", ".join(f"{n} {e:.3g}" for e, n in errors[1:6])
               |    wrong |= off("gradient consumed", errors[0][0], f" in {errors[0][1]} ({others})")
!logged        |    wrong |= off("loss optimised", abs(loss / true - 1))
logged         |    wrong |= off("loss logged", abs(logs[step] / true - 1))
               |    if norm is not None:  # of what was asked for, or at least of what was consumed
               |        wrong |= off("norm reported", min(abs(float(norm) / n - 1) for n in (total, float(column.norm()))))
               |print("WRONG" if wrong else "RIGHT", "with openrlhf", "$version", "deepspeed", deepspeed.__version__, flush=True)
               |folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
'''


def flags_of(cell: Cell) -> Flags:
    f = cell.facts()
    return {
        "ranks": cell.split.world_size > 1,
        "stage0": f["stage"] == 0,
        "stage3": f["stage"] == 3,
        "linked": f["stage"] in (1, 2),
        "logged": f["loss"] == "logged",
        "clip": f["clipping"] != "off",
        "refers": False,
        "head": False,
        "logsigmoid": False,
    }


def values_of(cell: Cell) -> Values:
    """Raises Incompatible where this release has no such option."""
    split, head, versions = cell.split, HEADS[cell.model], versions_of(driver.NAME)
    door, norm = _openrlhf_offline.door(cell), driver.asked_norm(cell)
    told = None if cell.knob("clipping") == "unset" else norm or 0.0
    options: dict[str, Any] = {
        **_openrlhf.common(cell, Path("FOLDER"), driver.ADAM, told),
        **door.options(cell, Path("FOLDER")),
    }
    module, _, trainer = door.trainer.partition(".")
    size = _openrlhf.size(cell)
    return {
        "id": cell.id,
        "version": versions.get("openrlhf", "(not installed)"),
        "deepspeed": versions.get("deepspeed", "(not installed)"),
        "W": str(split.world_size),
        "K": str(split.windows[0]),
        "size": str(size),
        "block": str(size * split.world_size),
        "micro": str(sum(split.windows) // split.epochs),
        "steps": str(split.steps),
        "mean": f" / {split.world_size}" if split.world_size > 1 else "",
        "seed": str(cell.seed + 1),
        "drawn": f"{1000 * cell.seed} + " if cell.seed else "",
        "config": config_of(cell),
        "cls": head.cls,
        "spread": str(head.spread),
        "module": module,
        "trainer": trainer,
        "told": door.logged,
        "command": door.module,
        "typed": _lines(_openrlhf.typed(door.module, options)),
        "b1": str(driver.ADAM["betas"][0]),
        "max_norm": str(norm),
    }


def _lines(words: list[str]) -> str:
    """The arguments, as many on a line as fit."""
    lines, line = list[str](), ""
    for word in words:
        if word.startswith("--") and len(line) + len(word) > 100:
            lines, line = [*lines, line], ""
        line += f" {word}" if line else word
    return "\n".join([*lines, line])
