"""The default grid: large enough, every pair of values in it, and a tenth of each costly kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import truestep.probes
from truestep.fixtures.cell import Cell, parse
from truestep.fixtures.drivers import driver_of
from truestep.probes.pairs import coverage, pairs, random_cells


@pytest.fixture(scope="module")
def default_grid() -> list[Cell]:
    cells: dict[Cell, None] = {}
    for path in sorted(Path(truestep.probes.__file__).parent.glob("test_*.py")):
        module = import_module(f"truestep.probes.{path.stem}")
        for value in vars(module).values():
            for mark in getattr(value, "pytestmark", ()):
                if mark.name == "parametrize":
                    cells.update((p.values[0], None) for p in mark.args[1])
    return [cell for cell in cells if cell.framework == "deepspeed"]


def test_the_default_grid_is_large_and_holds_every_pair(default_grid: list[Cell]) -> None:
    assert len(default_grid) >= 1000
    held, possible = coverage(default_grid)
    assert held == possible
    assert possible > 2000


def test_a_tenth_of_each_costly_kind(default_grid: list[Cell]) -> None:
    cells = [c for c in default_grid if c.device == "cpu"]
    shares = {
        "stage 3": sum(c.knob("stage") == "3" for c in cells),
        "two ranks": sum(c.split.world_size == 2 for c in cells),
        "language models": sum(c.model in ("llama", "qwen2") for c in cells),
        "DeepSpeedCPUAdam": sum(c.knob("optimizer") == "cpu_adam" for c in cells),
    }
    assert {name: n for name, n in shares.items() if n < len(cells) / 10} == {}


def test_random_cells_are_possible_different_and_the_same_for_the_same_seed() -> None:
    cells = random_cells("deepspeed", 300, 7)
    assert len(set(cells)) == 300
    assert cells == random_cells("deepspeed", 300, 7)
    assert cells != random_cells("deepspeed", 300, 8)
    assert all(driver_of("deepspeed").possible(c) for c in cells)
    assert all(parse(c.id) == c for c in cells)


def test_pairs_alone_hold_every_pair() -> None:
    held, possible = coverage(pairs("deepspeed", 0))
    assert held == possible
