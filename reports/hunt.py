"""Looking for a cell that is wrong and shrinking it, with hypothesis: the smallest that still fails is what is told.

Failing examples are kept in a database (https://hypothesis.readthedocs.io/en/latest/reference/api.html#database)
and replayed first by the next hunt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truestep.fixtures.cell import Cell, CellError
from truestep.reports.verdict import RED, Verdict

Judge = Callable[[Cell], Verdict]


@dataclass
class Hunt:
    """smallest: the verdict of the smallest red cell, None where none was found; first: the id it was shrunk from."""

    tried: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: str = ""
    smallest: Verdict | None = None


class _Found(AssertionError):
    """A red cell, for hypothesis to shrink."""


def hunt(
    framework: str, judge: Judge, *, examples: int, seed: int | None, database: Path | None, known: bool, fixed: dict[str, Any]
) -> Hunt:
    """Draw cells until one is red. ``known``: one that an advisory explains counts too.

    seed : draw the same cells again (and replay nothing); None draws new ones and replays the database
    Raises CellError where hypothesis is missing or ``fixed`` cannot be.
    """
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import seed as seeded
        from hypothesis.database import DirectoryBasedExampleDatabase
    except ImportError:
        raise CellError("hunt needs hypothesis: pip install hypothesis") from None
    from truestep.fixtures.strategies import cells

    result, cache = Hunt(), dict[Cell, Verdict]()

    def look(cell: Cell) -> None:
        if cell not in cache:
            cache[cell] = judge(cell)
            result.tried += 1
            result.counts[cache[cell].verdict] = result.counts.get(cache[cell].verdict, 0) + 1
        verdict = cache[cell]
        if verdict.verdict in RED and (known or not verdict.advisory or verdict.besides):
            result.first = result.first or cell.id
            result.smallest = verdict  # hypothesis ends with the smallest
            raise _Found(cell.id)

    try:
        strategy = cells(framework, **fixed)
        body = settings(
            max_examples=examples, deadline=None, print_blob=False,
            database=DirectoryBasedExampleDatabase(database) if database is not None else None,
            phases=[Phase.reuse, Phase.generate, Phase.shrink] if seed is None else [Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(look))  # fmt: skip
        (body if seed is None else seeded(seed)(body))()
    except _Found:
        pass
    except ValueError as error:
        raise CellError(str(error)) from None
    return result
