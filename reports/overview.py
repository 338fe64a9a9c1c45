"""The report of many environments for the terminal: a table of them, then each distinct finding once, then what decides."""

from __future__ import annotations

from collections.abc import Iterator

from truestep.reports.compare_runs import Comparison, lines
from truestep.reports.findings import Finding, counts, findings, headline, verdict_of
from truestep.reports.gate import CLEAN, UNUSABLE, Outcome
from truestep.reports.results import Results
from truestep.reports.terminal import finding
from truestep.reports.verdict import VERDICTS


def overview(results: Results, outcome: Outcome, comparison: Comparison | None = None) -> Iterator[str]:
    yield from table(results)
    for one in findings(results):
        yield ""
        yield from finding(str(one.row.get("question", "")), verdict_of(one.row), one.cells)
        yield f"  in: {_places(one)}"
        said = dict.fromkeys(str(text) for name, rows in one.where.items() for row in rows if (text := outcome.accepted.get((name, row["id"]))))
        yield from (f"  {text}" for text in said)
    if comparison is not None:
        yield ""
        yield from lines(comparison)
    yield ""
    yield headline(results)
    yield from (f"note: {text}" for text in outcome.notes)
    word = "unusable" if outcome.code == UNUSABLE else "failed"
    yield from (f"{word}: {text}" for text in outcome.reasons)
    if outcome.code == CLEAN and not outcome.notes:
        yield "passed"


def table(results: Results) -> Iterator[str]:
    """Environments and verdicts; columns that would be empty are left out."""
    told = {one.name + ("" if one.complete else " (unfinished)"): counts(one.rows.values()) for one in results.environments}
    shown = [v for v in VERDICTS if v in ("pass", "wrong") or any(c[v] for c in told.values())]
    first = max([len("environment"), *map(len, told)])
    yield f"{'environment':<{first}}  {'cells':>6}" + "".join(f"  {v:>{max(5, len(v))}}" for v in shown)
    for name, by_verdict in told.items():
        cells = "".join(f"  {by_verdict[v] or '.':>{max(5, len(v))}}" for v in shown)
        yield f"{name:<{first}}  {sum(by_verdict.values()):>6}{cells}"


def _places(one: Finding, most: int = 6) -> str:
    named = [f"{name} ({len(rows)})" for name, rows in one.where.items()]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
