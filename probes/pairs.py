"""Cells over all axes at once: random ones, a grid that holds every pair of values, and the proof.

Most configuration bugs need two settings to meet (NIST SP 800-142), so every possible pair of values
is in the default grid at least once. Random cells cover most pairs; the rest are completed one by
one. (The generator of ``allpairspy`` was tried: with constraints it left 177 of 2,349 pairs out.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations, product
from random import Random
from typing import Any

from truestep.fixtures.cell import Cell, CellError
from truestep.fixtures.drivers import driver_of, knobs_of

#: axes beside the knobs; windows as a split token's tail. A driver may have values of its own (``AXES``)
AXES: dict[str, tuple[Any, ...]] = {
    "windows": ((1,), (2,), (3,), (4,), (8,), (4, 4, 4), (3, 1, 4), (2, 2, 2)),
    "world_size": (1, 2),
    "uneven": (False, True),
    "model": ("mlp", "mlp_frozen", "mlp_tied", "mlp_reused", "mlp_unused", "llama", "qwen2"),
    "objective": ("token_mean", "sequence_mean"),
    "batch": ("ragged", "equal"),  # padded and shuffled are drawn by `truestep hunt`
}

#: axes whose value makes others possible: a pair is impossible if no combination of these admits it
ENABLERS = ("stage", "offload_optimizer", "dtype", "windows")

Pair = tuple[str, int, str, int]


@cache
def axes_of(framework: str) -> Mapping[str, tuple[Any, ...]]:
    """Every axis and its values; what constrains others comes first, as the generator needs it."""
    knobs: dict[str, tuple[Any, ...]] = dict(knobs_of(framework))
    if framework == "deepspeed":
        knobs["dtype"] = ("fp32", "bf16")  # fp16 is asked for in cells of its own: most CPUs refuse it
        knobs["returns"] = ("loss", "output")  # both: in cells of its own, so that the draws of a seed stay what they were
    enabling: tuple[str, ...] = ("stage", "offload_optimizer", "offload_param", "dtype")
    first = {name: knobs.pop(name) for name in enabling if name in knobs}
    axes = {**AXES, **getattr(driver_of(framework), "AXES", {})}
    return {**first, "windows": axes["windows"], **knobs, **{k: v for k, v in axes.items() if k != "windows"}}


@cache
def pairs(framework: str = "deepspeed", at_random: int = 0) -> tuple[Cell, ...]:
    """Cells that together hold every possible pair of values; ``at_random`` of them are random first."""
    cells, random, axes = random_cells(framework, at_random, seed=1), Random(2), axes_of(framework)
    names = list(axes)
    missing = set(_possible_pairs(framework)) - _held(cells, framework)
    while missing:
        a, x, b, y = min(missing)
        wanted = {a: axes[a][x], b: axes[b][y]}
        base = _completion(framework, wanted)
        assert base is not None
        best, gain = None, -1
        for _ in range(40):  # of some random completions, the one that brings most of what is missing
            row = {**base, **{n: random.choice(axes[n]) for n in random.sample(names, len(names) // 2)}, **wanted}
            if _possible(framework, row):
                cell = Cell.make(framework, **row, seed=1)
                new = len(missing & _held([cell], framework))
                if new > gain:
                    best, gain = cell, new
        cell = best or Cell.make(framework, **base, seed=1)
        cells.append(cell)
        missing -= _held([cell], framework)
    return tuple(dict.fromkeys(cells))


def random_cells(framework: str, count: int, seed: int) -> list[Cell]:
    """``count`` different possible cells drawn from all axes; the same for the same seed."""
    random, found = Random(seed), dict[Cell, None]()
    while len(found) < count:
        # a third of the draws are defaults: without them constraints would favour rare corners
        row = {n: v[0] if random.random() < 0.33 else random.choice(v) for n, v in axes_of(framework).items()}
        if _possible(framework, row):
            found[Cell.make(framework, **row, seed=random.randrange(100))] = None
    return list(found)


def coverage(cells: Iterable[Cell], framework: str = "deepspeed") -> tuple[int, int]:
    """(pairs of values that the cells hold, pairs that any possible cell could hold)."""
    possible = _possible_pairs(framework)
    return len(_held(cells, framework) & possible), len(possible)


def _held(cells: Iterable[Cell], framework: str) -> set[Pair]:
    index = {name: {value: i for i, value in enumerate(values)} for name, values in axes_of(framework).items()}
    held: set[Pair] = set()
    for cell in cells:
        row = [(n, i) for n, known in index.items() if (i := known.get(_value(cell, n), -1)) >= 0]
        held.update((a, x, b, y) for (a, x), (b, y) in combinations(row, 2))
    return held


def _value(cell: Cell, name: str) -> Any:
    if name == "windows":
        return cell.split.windows
    if name in ("world_size", "uneven"):
        return getattr(cell.split, name)
    return getattr(cell, name) if name in AXES else cell.knob(name)


def _possible(framework: str, row: Mapping[str, Any]) -> bool:
    try:
        return bool(driver_of(framework).possible(Cell.make(framework, **row)))
    except CellError:
        return False


def _completion(framework: str, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Values for what makes other knobs possible (all else stays at its default), or None."""
    axes = axes_of(framework)
    for values in product(*(axes[name] for name in ENABLERS if name in axes)):
        row = {**dict(zip([n for n in ENABLERS if n in axes], values, strict=True)), **wanted}
        if _possible(framework, row):
            return row
    return None


@cache
def _possible_pairs(framework: str) -> frozenset[Pair]:
    axes, found = axes_of(framework), set()
    for a, b in combinations(axes, 2):
        for x, left in enumerate(axes[a]):
            for y, right in enumerate(axes[b]):
                if _completion(framework, {a: left, b: right}) is not None:
                    found.add((a, x, b, y))
    return frozenset(found)
