"""Two runs side by side: which findings are new, fixed or unchanged, and which cells are no longer judged.

A finding is a cell and a bug. ``fixed`` is only what was judged again and is right: a cell that is gone, or that gave no answer, is told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from truestep.reports.baseline import names
from truestep.reports.findings import JUDGED, figure
from truestep.reports.results import Environment, Results, ResultsError, Row
from truestep.reports.terminal import fingerprint
from truestep.reports.verdict import PASS, RED, WRONG

NEW, FIXED, UNCHANGED, CHANGED, MISSING = KINDS = ("new", "fixed", "unchanged", "changed", "missing")
SCHEMA = "truestep-comparison-1"
GONE = "not in the run"
OTHERWISE = {NEW: "was wrong in another way", CHANGED: "is wrong in another way now"}


@dataclass(frozen=True)
class Change:
    """One cell of one environment, or one finding of it.

    kind   : new, fixed or unchanged (findings), changed (another verdict, neither new nor fixed), missing (it was judged and is not any more)
    before, after : verdicts, ``GONE`` for a cell that is not there; figures: relative error of the first red check, None where none is red
    """

    kind: str
    environment: str
    cell: str
    bug: str
    before: str
    after: str
    figure_before: float | None = None
    figure_after: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Comparison:
    """pairs: (OLD, NEW) names of the environments that were compared; alone: those of one side only, each told in a line."""

    changes: tuple[Change, ...]
    pairs: tuple[tuple[str, str], ...]
    alone: tuple[str, ...] = ()

    def of(self, kind: str) -> list[Change]:
        return [change for change in self.changes if change.kind == kind]

    @cached_property
    def new(self) -> frozenset[tuple[str, str]]:
        """(environment, cell) of every new finding."""
        return frozenset((c.environment, c.cell) for c in self.of(NEW))

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(self.of(kind)) for kind in KINDS}

    @property
    def sentence(self) -> str:
        told = self.counts
        return (
            f"Against the earlier run: {told[NEW]} new, {told[FIXED]} fixed, {told[UNCHANGED]} unchanged findings; "
            f"{told[MISSING]} cells that were judged are not any more, {told[CHANGED]} changed otherwise."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; JSON has no NaN and no infinity, text stands for both."""
        changes = [{name: _plain(value) for name, value in asdict(change).items()} for change in self.changes]
        return {"schema": SCHEMA, "counts": self.counts, "pairs": [list(pair) for pair in self.pairs], "alone": list(self.alone), "changes": changes}


def compare(old: Results, new: Results) -> Comparison:
    """Environments of the same name, or the only one of either side whatever they are called.

    Raises ResultsError where no environment can be compared, or where one side judged nothing.
    """
    for side, results in (("the earlier run", old), ("the new run", new)):
        if not any(row["verdict"] in JUDGED for _, row in results):
            raise ResultsError(f"{side} judged nothing; there is nothing to compare")
    befores = {one.name: one for one in old.environments}
    afters = {one.name: one for one in new.environments}
    pairs = [(befores[name], afters[name]) for name in befores if name in afters]
    if not pairs:
        if len(befores) != 1 or len(afters) != 1:
            raise ResultsError(
                f"no environment is in both runs: {_few(befores)} before, {_few(afters)} now; compare two files of one environment each"
            )
        pairs = [(old.environments[0], new.environments[0])]
    changes = [change for before, after in pairs for change in _changes(before.rows, after.rows, after.name)]
    alone = []
    for one in new.environments:
        if one.name not in {after.name for _, after in pairs}:
            alone.append(f"{one.name} was not in the earlier run: all its findings are new")
            changes += _changes({}, one.rows, one.name)
    for one in old.environments:
        if one.name not in {before.name for before, _ in pairs}:
            alone.append(f"{one.name} is missing now: none of its findings counts as fixed")
            changes += _changes(one.rows, {}, one.name)
    return Comparison(tuple(changes), tuple((before.name, after.name) for before, after in pairs), tuple(alone))


def _few(some: Mapping[str, Environment]) -> str:
    listed = list(some)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _changes(before: Mapping[str, Row], after: Mapping[str, Row], environment: str) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        yield from _change(before.get(name), after.get(name), environment, name)


def _change(before: Row | None, after: Row | None, environment: str, cell: str) -> Iterator[Change]:
    """What became of one cell: at most one change of its findings, and one of its verdict."""
    was, now = (GONE if row is None else str(row["verdict"]) for row in (before, after))
    figures = (figure(before) if before else None, figure(after) if after else None)

    def told(kind: str, row: Row | None) -> Change:
        bug = fingerprint(row) if row is not None and row["verdict"] in RED else ""
        return Change(kind, environment, cell, bug, was, now, *figures, _words(row))

    if after is not None and now in RED:
        same = before is not None and was == now and set(names(before)) & set(names(after))
        yield told(UNCHANGED if same else NEW, after)
        if not same and was == now == WRONG:  # another fault in its place: the first is not known to be gone
            yield told(CHANGED, before)
        elif was in JUDGED and now not in JUDGED:
            yield told(MISSING, before)
        return
    if was in RED and now == PASS:
        yield told(FIXED, before)
    elif was in JUDGED and now not in JUDGED:
        yield told(MISSING, before)
    elif was != now and before is not None:
        yield told(CHANGED, before)


def _words(row: Row | None) -> str:
    return "" if row is None else str((row.get("diagnosis") or {}).get("words") or row.get("reason", ""))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def lines(comparison: Comparison, most: int = 20) -> Iterator[str]:
    """For the terminal: what is new in full, the rest counted by what became of it."""
    for before, after in comparison.pairs:
        yield f"{before} -> {after}" if before != after else after
    yield from comparison.alone
    yield comparison.sentence
    for kind in (NEW, FIXED, MISSING, CHANGED, UNCHANGED):
        some = comparison.of(kind)
        if not some:
            continue
        yield ""
        yield f"{kind} ({len(some)})"
        for (bug, was, now), group in _grouped(some).items():
            change = f"{was} -> {now}" if was != now else OTHERWISE.get(kind, now)
            yield f"  {change}{f': {bug}' if bug else ''} ({len(group)} cell{'s' * (len(group) != 1)}){arrow(group)}"
            if kind == NEW and group[0].words:
                yield f"    {group[0].words}"
            for one in group[: most if kind == NEW else 3]:
                yield f"    {one.cell}" + (f" in {one.environment}" if len(comparison.pairs) + len(comparison.alone) > 1 else "")
            if (rest := len(group) - (most if kind == NEW else 3)) > 0:
                yield f"    and {rest} more"


def _grouped(changes: list[Change]) -> dict[tuple[str, str, str], list[Change]]:
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for one in changes:
        groups.setdefault((one.bug, one.before, one.after), []).append(one)
    return groups


def arrow(group: list[Change]) -> str:
    """The worst figure before and after; "" where there was none."""
    sides = []
    for values in ([c.figure_before for c in group], [c.figure_after for c in group]):
        known = [v for v in values if v is not None]
        sides.append(f"{max(known, key=lambda v: (v != v, v)):.3g}" if known else "-")
    return "" if sides == ["-", "-"] else f", off by {sides[0]} -> {sides[1]}"
