"""How a probe is written: data (a grid of cells) plus one sentence.

    @probe(grid(stage=(1, 2), offload_optimizer="cpu", windows=(1, 2, 3, 4, 8)))
    def test_offload_changes_nothing(step: Step) -> None:
        "Keeping the optimizer on the CPU must not change the step."
        step.must_be_right()

``step`` waits for the verdict of its cell; the plugin schedules all selected cells together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import pytest
from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import driver_of

QUICK = 12  # cells of a probe under --quick


def probe(cells: Iterable[Cell], quick: int = QUICK) -> Callable[[Any], Any]:
    """Parametrise a test over cells; the ids are the cells' own, ``quick`` how many --quick keeps."""
    unique = list(dict.fromkeys(cells))
    parameters = [pytest.param(cell, id=cell.id) for cell in unique]

    def mark(function: Any) -> Any:
        function.truestep_quick = frozenset(_spread(unique, quick))
        return pytest.mark.truestep(pytest.mark.parametrize("step", parameters, indirect=True)(function))

    return mark


def _spread(cells: list[Cell], count: int) -> list[Cell]:
    """Evenly over the grid, cheap ones only: --quick answers in about ten seconds."""
    cheap = [c for c in cells if c.split.world_size == 1 and c.model.startswith("mlp")
             and c.knob("optimizer") != "cpu_adam" and c.device == "cpu"]  # fmt: skip
    stride = max(1, len(cheap) // count) if count else 1
    return cheap[::stride][:count]


def grid(framework: str = "deepspeed", **axes: Any) -> Iterator[Cell]:
    """Every combination of the axes that the framework's documentation offers.

    An axis is one value or a tuple of values; ``windows`` takes an int (micro-batches per step) or a
    list (one entry for each of several steps).
    """
    options = {name: value if isinstance(value, tuple) else (value,) for name, value in axes.items()}
    for values in product(*options.values()):
        cell = Cell.make(framework, **dict(zip(options, values, strict=True)))
        if driver_of(framework).possible(cell):
            yield cell
