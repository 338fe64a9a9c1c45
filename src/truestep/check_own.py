"""What ``check_step`` is given of a user's own (a model, samples, an objective), made known to cells and tried before it is used."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from truestep.fixtures import own
from truestep.fixtures.cell import Cell, CellError

_names: dict[tuple[Any, ...], tuple[str, str]] = {}  # (model, samples, objective, steps) -> what cells call them
_kept: list[Any] = []  # what an id above stands for must not be collected, or another object may get its id
_tried: set[Cell] = set()


def registered(model: Any, samples: Any, objective: Any, steps: int) -> tuple[str, str]:
    """(model, objective) as a cell names them; own ones are given a name, the same for the same objects."""
    if isinstance(model, str) and isinstance(objective, str) and samples is None:
        return model, objective
    key = (model if isinstance(model, str) else id(model), id(samples) if samples is not None else None,
           objective if isinstance(objective, str) else id(objective), steps)  # fmt: skip
    if key not in _names:
        _kept.append((model, samples, objective))
        _names[key] = _register(model, samples, objective, steps)
    return _names[key]


def _register(model: Any, samples: Any, objective: Any, steps: int) -> tuple[str, str]:
    import torch

    from truestep.fixtures import batches
    from truestep.fixtures import own_models as brought

    usual = model if isinstance(model, str) else "llama.lm"
    rows = None if samples is None else brought.gathered(samples, steps)
    longest: dict[str, int] = {}
    for name, value in chain.from_iterable(row.items() for row in chain(*rows or ())):
        longest[name] = max(longest.get(name, 0), len(value) if getattr(value, "shape", (1,)) and hasattr(value, "__len__") else 0)
    terms = None if isinstance(objective, str) else objective

    def build(seed: int) -> Any:
        return brought.OwnTask(_net(model, seed), terms)

    def batch(kind: str, seed: int, step: int) -> Any:
        if rows is not None:
            fields = brought.collate(rows[step], longest)
            return brought.own_batch(fields) if terms is not None else brought.language_batch(fields)
        plain = batches.make(kind, usual, seed, step)
        return plain if terms is None else brought.own_batch(brought.seen(plain))

    def seen(kind: str, seed: int, step: int, part: tuple[int, ...]) -> dict[str, Any]:
        if rows is not None:
            return brought.typed(brought.collate([rows[step][i] for i in part]), torch.float32)
        return brought.seen(batches.make(kind, usual, seed, step).take(part))

    name = _free(f"my.{model if isinstance(model, str) else _name(model)}", own.MODELS)
    own.MODELS[name] = own.Model("lm" if terms is None else "own", build, batch, None if terms is None and rows is None else seen)
    if terms is None:
        return name, str(objective)
    called = _free(f"my.{_name(objective)}", own.OBJECTIVES)
    own.OBJECTIVES[called] = brought.Objective(terms)
    return name, called


def _net(model: Any, seed: int) -> Any:
    """A fresh module of the user's, or of truestep's own model of that name."""
    import torch

    if isinstance(model, str):
        from truestep.fixtures import models

        return models.build(model, seed).net
    net = model()
    if not isinstance(net, torch.nn.Module):
        raise CellError(f"the model function returned {type(net).__name__}: return a torch.nn.Module")
    wrong = next((n for n, p in net.named_parameters() if p.dtype != torch.float32 or p.device.type != "cpu"), None)
    if wrong is not None:
        raise CellError(f"the parameter {wrong!r} of your model is not float32 on the CPU: build it so; the check is of the step")
    return net


def _name(thing: Any) -> str:
    text = getattr(thing, "__name__", type(thing).__name__)
    return "".join(c if c.isalnum() or c == "_" else "_" for c in text).strip("_") or "own"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


def is_adam(make: Callable[[Any], Any]) -> bool:
    """Whether that function builds AdamW, found by calling it once."""
    import torch

    from truestep.fixtures.drivers.own import optimizer_of

    return optimizer_of(make, [torch.nn.Parameter(torch.zeros(1))], None)[0] == "adam"


def validate(cell: Cell) -> None:
    """Raises CellError where the oracle would have no meaning: a model or an objective of the user's that is random, that has
    nothing to train, or whose loss of a sample depends on the other samples; a micro-batch without anything to train on."""
    if cell in _tried:
        return
    from truestep.fixtures import batches, problem

    try:
        from truestep.fixtures import models

        models.build(cell.model, cell.seed)
    except ImportError as error:
        raise CellError(f"the model {cell.model!r} cannot be built: {error}; pip install transformers, or use model='tiny.lm'") from error
    for step in range(cell.split.steps):
        mask = problem.batch(cell, step).mask
        (dealt,) = batches.deal(cell.split, step)
        empty = next((k for k, rows in enumerate(dealt) if not bool(mask[list(rows)].any())), None)
        if empty is not None:
            raise CellError(f"micro-batch {empty + 1} of step {step + 1} has nothing to train on: give it a label, or use fewer micro-batches")
    if cell.model in own.MODELS and cell.model != own.TINY:
        _same_twice(cell)
    _tried.add(cell)


def _same_twice(cell: Cell) -> None:
    import torch

    from truestep.fixtures import batches, models, problem

    task = models.exact(cell.model, cell.seed)
    if not any(p.requires_grad for p in task.parameters()):
        raise CellError("no parameter of your model requires a gradient: there is no step to check")
    batch = problem.batch(cell, 0)
    (dealt,) = batches.deal(cell.split, 0)
    with torch.no_grad():
        whole, again = (_losses(cell, task, batch) for _ in range(2))
        if not torch.equal(whole, again):
            raise CellError("your model or objective gives another loss when it is asked again: build it without dropout or other randomness")
        if problem.by_micro_batch(cell.objective):
            return
        for rows in dealt:
            index = list(rows)
            part = _losses(cell, task, batch.rows(index))
            off = (part - whole[index]).abs().amax(1) > 1e-9 * whole.abs().max()
            if bool(off.any()):
                row = index[int(off.nonzero()[0])]
                raise CellError(f"the loss of sample {row} depends on which other samples are in its batch: return losses of single samples or tokens")


def _losses(cell: Cell, task: Any, batch: Any) -> Any:
    import torch

    from truestep.fixtures import problem

    found = problem.losses(cell.objective, task.output(batch, torch.float64), batch)
    return torch.where(batch.mask, found, torch.zeros_like(found))


def raised(error: BaseException) -> str:
    """One line: what a user's step raised, and in which of its lines."""
    ours = ("/drivers/own.py", "/truestep/check.py")  # a step that cannot be called has no line of its own
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.replace("\\", "/").endswith(ours)]
    place = f", line {frames[-1].lineno} of {frames[-1].name} in {frames[-1].filename.rpartition('/')[2]}" if frames else ""
    return f"your step raised {type(error).__name__}: {first_line(error)}{place}"


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"
