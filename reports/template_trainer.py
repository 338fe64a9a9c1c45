"""What the scripts of transformers' Trainer and of TRL's trainers share: the head, what is watched, and the comparison.

``loss_of(rows)`` and the list ``ours`` of the reference's parameters are the script's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truestep.fixtures.cell import Cell, adapter_of
from truestep.fixtures.drivers import _trainer, _trainer_zero
from truestep.reports.template import Flags, Values, dictionary, needed

HEAD = r'''
                  |$quotes$name $version: $id
                  |Compares the gradient that the optimizer received with plain PyTorch's of the whole batch.
                  |Run: python this_file.py ($packages; CPU). Exit code: 1 wrong, 0 right, 2 refused.$quotes
                  |import copy, os, sys, tempfile
                  |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
under !ranks      |rank = 0
ranks             |rank = int(os.fork() == 0)  # this process is rank 0, its child the other
ranks             |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
joined            |os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="$W", MASTER_ADDR="localhost", MASTER_PORT="0")
                  |import $modules
                  |$functions
                  |
                  |LR, $kept = $lr, []  # of every step: $of_step
under             |$zero
                  |
'''
HELPERS = r'''
                  |def flat(tensors):
                  |    return torch.cat([t.detach().double().flatten() for t in tensors])
                  |
                  |def gradient_of(loss):
                  |    return flat(torch.autograd.grad(loss, ours, retain_graph=True, materialize_grads=True))
                  |
                  |def check(what, got, want, limit=1e-4, of=""):
                  |    got, want = (torch.as_tensor(value, dtype=torch.double).detach() for value in (got, want))
                  |    error = float((got - want).norm() / want.norm().clamp(min=1e-3))
                  |    print(f"{what} is off by {error:.3g}{of}" + ("" if error <= limit else "  <- WRONG"))
                  |    return not error <= limit
                  |
hook              |def watch(optimizer, *_):
hook              |    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
hook              |    seen.append((flat(trained), flat(grads), optimizer.param_groups[0]["lr"]))
stage3            |def whole(p):
stage3            |    with deepspeed.zero.GatheredParameters([p]):
stage3            |        return p.detach().clone()
stage3            |
under             |class Watch(transformers.TrainerCallback):
under             |    def on_step_end(self, *_, **__):
under             |        weights.append($weights)
                  |
'''
JOIN = r'''
                  |sys.excepthook = lambda *e: os._exit(print("REFUSED by $name", *e[:2], flush=True$file) or 2)
joined            |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=$W)
under             |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
under             |deepspeed.init_distributed("gloo", verbose=False)
                  |torch.manual_seed($seed)
'''
STEPS = r'''
under             |rates = [$scheduled for step in range($steps)]
under             |seen = [(a, (a - b) / r, r) for a, b, r in zip([flat(ours), *weights], weights, rates)]  # what plain SGD did
several           |logs = [log for log in trainer.state.log_history if "loss" in log]
several           |wrong = check("the number of optimizer steps", len(seen), $steps, 0)
!several          |(before, got, rate), log, rows = seen[0], trainer.state.log_history[0], data
several           |for step, ((before, got, rate), log) in enumerate(zip(seen, logs)):
epochs            |    rows = data[step % $per_epoch * $batch :][:$batch]
several !epochs   |    rows = data[step * $batch :][:$batch]
'''
STEP = r'''
                  |parts = [rows[i : i + $micro] for i in range(0, len(rows), $micro)]  # the micro-batches$whose
                  |torch.nn.utils.vector_to_parameters(before.float(), ours)
plain             |total, count = loss_of(rows)  # the whole batch at once
plain             |loss, want = total / count, gradient_of(total / count)
plain             |each = [gradient_of(loss_of(part)[0] / count) for part in parts]
terms             |terms = loss_of(rows)  # the whole batch at once: a sum of means
terms             |loss, want = sum(t / n for t, n in terms), gradient_of(sum(t / n for t, n in terms))
terms             |each = [gradient_of(sum(t / n for (t, _), (_, n) in zip(loss_of(part), terms))) for part in parts]
scope             |losses = [total / count / len(parts) for total, count in map(loss_of, parts)]  # it is documented to be of a micro-batch
scope             |each = [gradient_of(loss) for loss in losses]
scope             |loss, want = sum(losses), sum(each)
apiece            |totals, counts, more = zip(*map(loss_of, parts))  # what is added belongs to a micro-batch
apiece            |each = [gradient_of(t / sum(counts)) for t in totals] + [gradient_of(m / len(parts)) for m in more]
apiece            |loss, want = sum(totals) / sum(counts) + sum(more) / len(parts), sum(each)
clip              |factor = min(1.0, $max_norm / (want.norm() + 1e-6))
                  |weights = [round(w, 3) for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got$unclipped).tolist()]  # least squares
!apiece           |print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
apiece            |print(f"effective weights of the micro-batches: {weights[: len(parts)]}  expected: {[1.0] * len(parts)}")
apiece            |print(f"effective weights of what is added: {weights[len(parts) :]}  expected: {[1.0] * len(parts)}")
                  |wrong $or= check($what, got, $clipped, of=" (relative to the whole batch's gradient)")
                  |wrong |= check("the loss logged", log["loss"], loss, 1e-4 + 1e-4 / max(abs(float(loss)), 1e-3))
                  |wrong |= check("the norm logged", log.get("grad_norm") or want.norm(), want.norm())
linear            |wrong |= check("the learning rate, used and logged,", [rate, log["learning_rate"]], [$scheduled] * 2, 1e-6)
'''
END = r'''
ranks             |torch.distributed.broadcast(other := $weights, 1)
ranks             |wrong |= check("rank 1, against rank 0,", other, $weights, 0)
                  |print("WRONG" if wrong else "RIGHT", "with $name", $name.__version__, flush=True)
                  |folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
'''
LONGEST = 80


def flags_of(cell: Cell) -> Flags:
    f, split = cell.facts(), cell.split
    under = f.get("engine", "none") == "deepspeed"
    return {
        "ranks": split.world_size > 1,
        "joined": under or split.world_size > 1,
        "under": under,
        "hook": not under,
        "stage3": under and f["stage"] == 3,
        "several": split.steps > 1,
        "linear": f["schedule"] == "linear",
        "epochs": split.epochs > 1,
        "clip": f["clipping"] in ("tight", "unset"),
        "has_adapter": bool(adapter_of(cell.model)),
        "plain": cell.objective != "router",
        "apiece": cell.objective == "router",
        "terms": False,
        "scope": False,
    }


def values_of(cell: Cell, driver: Any) -> Values:
    f, split, flags = cell.facts(), cell.split, flags_of(cell)
    steps, ranks = split.steps, split.world_size
    micro, linear = micro_size(cell), f["schedule"] == "linear"
    batch = micro * ranks * max(split.windows)
    zero = _trainer_zero.configuration(cell) if flags["under"] else {}
    for name in ("steps_per_print", "zero_force_ds_cpu_optimizer"):
        zero.pop(name, None)
    if f.get("offload_optimizer") == "cpu":
        zero["zero_force_ds_cpu_optimizer"] = False
    packages = {
        "trl": driver.NAME == "trl", "transformers": True, "accelerate": True, "torch": True,
        "peft": flags["has_adapter"], "deepspeed": flags["under"],
    }  # fmt: skip
    modules = {"deepspeed": flags["under"], "peft": flags["has_adapter"], "torch": True, "transformers": True}
    return {
        "name": driver.NAME,
        "version": driver.version() or "?",
        "id": cell.id,
        "packages": ", ".join(needed(packages)),
        "modules": ", ".join(needed(modules | {driver.NAME: True})),
        "zero": dictionary("ZERO = {", zero, 120) if zero else "",
        "of_step": "the weights after it" if flags["under"] else "weights, gradient, learning rate",
        "kept": "weights" if flags["under"] else "seen",
        "lr": repr(0.5 if flags["under"] else _settings(cell)["lr"]),
        "file": ", file=sys.__stdout__" * (ranks > 1),
        "weights": "flat(map(whole, trained))" if flags["stage3"] else "flat(trained)",
        "or": "|" * (steps > 1),
        "what": 'f"step {step + 1}: gradient"' if steps > 1 else '"step 1: gradient"',
        "W": str(ranks),
        "quotes": '"' * 3,
        "scheduled": f"LR * (1 - step / {steps})" if linear and steps > 1 else "LR",
        "steps": str(steps),
        "per_epoch": str(steps // split.epochs),
        "batch": str(batch),
        "micro": str(micro),
        "whose": ", by turns of the ranks" * (ranks > 1),
        "max_norm": repr(driver.MAX_NORM[f["clipping"]]),
        "clipped": "factor * want" if flags["clip"] else "want",
        "unclipped": " / factor" * flags["clip"],
        "total": str(sum(split.samples(s) for s in range(steps // split.epochs))),
        "seed": str(cell.seed + 1),
    }


def micro_size(cell: Cell) -> int:
    split = cell.split
    return split.size or split.samples(0) // (split.world_size * split.windows[0])


def _settings(cell: Cell) -> dict[str, Any]:
    return _trainer.SGD if cell.knob("optimizer") == "sgd" else _trainer.ADAM


def optimizer(cell: Cell) -> str:
    more = {k: v for k, v in _settings(cell).items() if k != "lr"}
    kind = "SGD" if cell.knob("optimizer") == "sgd" else "AdamW"
    return f"torch.optim.{kind}(trained, lr=LR, " + ", ".join(f"{k}={v!r}" for k, v in more.items()) + ")"


def arguments(cell: Cell) -> dict[str, Any]:
    """What a cell's knobs mean as TrainingArguments."""
    given = _trainer.arguments(cell, "")
    for name in ("output_dir", "seed", "dataloader_pin_memory", "gradient_checkpointing", "learning_rate", "disable_tqdm"):
        del given[name]
    if not adapter_of(cell.model):
        del given["remove_unused_columns"]
    given.pop("deepspeed", None)  # the script has its own dictionary of it, named ZERO
    if given["gradient_accumulation_steps"] == 1:
        del given["gradient_accumulation_steps"]
    if cell.facts().get("evaluate", "none") == "none":
        del given["per_device_eval_batch_size"]
    if cell.split.epochs == 1:
        given["num_train_epochs"] = 1
    if cell.knob("checkpointing") == "on":
        given["gradient_checkpointing"] = True
    return {**given, "report_to": "none"}


def call(opening: str, options: Mapping[str, Any], raw: Mapping[str, str], width: int = 120) -> str:
    """``opening(a=1, b=c)``, as many arguments on a line as fit; ``raw``: source, not values."""
    items = [f"{k}={v}" for k, v in raw.items()] + [f"{k}={_literal(v)}" for k, v in options.items()]
    lines = [f"{opening}("]
    for i, item in enumerate(items):
        item += ")" if i == len(items) - 1 else ","
        if len(lines[-1]) + len(item) >= width:
            lines.append("    " + item)
        else:
            lines[-1] += item if lines[-1].endswith("(") else f" {item}"
    return "\n".join(lines)


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def finish(*parts: str) -> str:
    """The source: without blank lines where it would be long."""
    lines = "".join(parts).splitlines(keepends=True)
    if len(lines) > LONGEST:
        lines = [line for line in lines if line.strip()]
    return "".join(lines)
