"""How a probe is written: data (a grid of cells) plus one sentence.

    @probe(grid(stage=(1, 2), offload_optimizer="cpu", windows=(1, 2, 3, 4, 8)))
    def test_offload_changes_nothing(step: Step) -> None:
        "Keeping the optimizer on the CPU must not change the step."
        step.must_be_right()

``step`` waits for the verdict of its cell; the plugin schedules all selected cells together. A probe may stand in any test
file of anybody (docs/extending.md): its family is the file's name without ``test_``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import BrokenDriver, driver_of

QUICK = 12  # cells of a probe under --quick


@dataclass(frozen=True)
class Broken:
    """Stands for all cells of a framework whose driver cannot be used: one red test with the reason."""

    framework: str
    reason: str


def probe(cells: Iterable[Cell | Broken], quick: int = QUICK) -> Callable[[Any], Any]:
    """Parametrise a test over cells; the ids are the cells' own, ``quick`` how many --quick keeps."""
    every = list(dict.fromkeys(cells))
    unique = [cell for cell in every if isinstance(cell, Cell)]
    parameters = [pytest.param(one, id=one.id if isinstance(one, Cell) else f"{one.framework}-broken-driver") for one in every]

    def mark(function: Any) -> Any:
        function.truestep_quick = frozenset(_spread(unique, quick))
        return pytest.mark.truestep(pytest.mark.parametrize("step", parameters, indirect=True)(function))

    return mark


def _spread(cells: list[Cell], count: int) -> list[Cell]:
    """Evenly over the grid, cheap ones only: --quick answers in about ten seconds."""
    cheap = [c for c in cells if c.split.world_size == 1 and c.model.startswith("mlp")
             and dict(c.knobs).get("optimizer") != "cpu_adam" and c.device == "cpu"]  # fmt: skip
    stride = max(1, len(cheap) // count) if count else 1
    return cheap[::stride][:count]


def grid(framework: str = "deepspeed", **axes: Any) -> Iterator[Cell | Broken]:
    """Every combination of the axes that the framework's documentation offers.

    An axis is one value or a tuple of values; ``windows`` takes an int (micro-batches per step) or a
    list (one entry for each of several steps).
    """
    try:
        driver = driver_of(framework)
    except BrokenDriver as error:  # from outside: it costs its own probes one test, not the collection of everything else
        yield Broken(framework, str(error))
        return
    options = {name: value if isinstance(value, tuple) else (value,) for name, value in axes.items()}
    for values in product(*options.values()):
        cell = Cell.make(framework, **dict(zip(options, values, strict=True)))
        try:
            offered = driver.possible(cell)
        except Exception as error:  # code of others, at collection: whatever it raises costs their own cells
            yield Broken(framework, f"driver {framework!r} failed in possible({cell.id}): {type(error).__name__}: {error}")
            return
        if offered:
            yield cell
