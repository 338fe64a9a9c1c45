"""Each distinct finding of a set of results once, and what all of them together come to in one sentence. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from truestep.reports.results import Results, Row
from truestep.reports.terminal import finding_key, fingerprint
from truestep.reports.verdict import BY_DESIGN, ERROR, PASS, RED, TIMEOUT, VERDICTS, WRONG, Verdict

#: the verdicts that say something about the framework; all others say that nothing is known
JUDGED = (PASS, WRONG, BY_DESIGN)


@dataclass(frozen=True)
class Finding:
    """What one bug did, in every environment.

    bug   : advisory id or fingerprint (``terminal.fingerprint``); row: the simplest of its cells, which is shown
    where : environment name -> its rows
    """

    bug: str
    row: Row
    where: Mapping[str, tuple[Row, ...]]

    @property
    def verdict(self) -> str:
        return str(self.row["verdict"])

    @property
    def red(self) -> bool:
        return self.verdict in RED

    @property
    def framework(self) -> str:
        return str(self.row["cell"]["framework"])

    @property
    def cells(self) -> int:
        """Over all environments: one that is wrong in two counts twice."""
        return sum(len(rows) for rows in self.where.values())

    @property
    def words(self) -> str:
        """What was done wrong, or what happened instead of a step."""
        return str((self.row.get("diagnosis") or {}).get("words") or self.row.get("reason", ""))

    @property
    def worst(self) -> float | None:
        """The largest relative error; None where there is no figure."""
        figures = [f for rows in self.where.values() for row in rows if (f := figure(row)) is not None]
        return max(figures, key=lambda f: (f != f, f), default=None)  # nothing is worse than no number

    @property
    def command(self) -> str:
        return f"truestep run {self.row['id']}" + (" --patch" if self.row.get("patches") else "")

    @cached_property
    def advisory(self) -> Any:
        """The ``Advisory``, or None for what is not known."""
        from truestep.patches import advisories

        return next((a for a in advisories() if a.id == self.row.get("advisory")), None)

    @property
    def title(self) -> str:
        if self.advisory is not None:
            return str(self.advisory.title)
        if self.verdict in (ERROR, TIMEOUT):
            return f"{self.framework}: {self.verdict} instead of a step"
        return f"{self.framework}: not known: {self.words}"


def findings(results: Results) -> list[Finding]:
    """Bugs first, then what failed, then documented choices; within these in the order of the environments."""
    groups: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for environment, row in results:
        if row["verdict"] in RED or row["verdict"] == BY_DESIGN:
            groups.setdefault(finding_key(row), {}).setdefault(environment.name, []).append(row)
    found = []
    for where in groups.values():
        row = min((row for rows in where.values() for row in rows), key=_simple)
        found.append(Finding(fingerprint(row), row, {name: tuple(rows) for name, rows in where.items()}))
    order = (WRONG, ERROR, TIMEOUT, BY_DESIGN)
    return sorted(found, key=lambda f: order.index(f.verdict))


def _simple(row: Row) -> tuple[Any, ...]:
    return (row.get("diagnosis") is None, len(row["cell"].get("knobs", {})), len(row["id"]), row["id"])


def figure(row: Row) -> float | None:
    """The relative error of the first check that is red; None where none is."""
    return next((float(c["figure"]) for c in row.get("checks", ()) if not c["figure"] <= c["bound"]), None)


def verdict_of(row: Row) -> Verdict:
    """The verdict that a row of a results file holds."""
    return Verdict.from_json({name: value for name, value in row.items() if name in Verdict.__dataclass_fields__})


def counts(rows: Iterable[Row]) -> Counter[str]:
    """verdict -> cells, in the order in which verdicts are shown."""
    told = Counter(row["verdict"] for row in rows)
    return Counter({verdict: told[verdict] for verdict in VERDICTS if told[verdict]})


def judged(told: Mapping[str, int]) -> int:
    """Of these counts the cells that got an answer."""
    return sum(told.get(verdict, 0) for verdict in JUDGED)


def headline(results: Results) -> str:
    """One sentence: what all environments together come to."""
    told = counts(row for _, row in results)
    places = len(results.environments)
    where = f" in {places} environments" if places > 1 else ""
    if not judged(told):
        silent = ", ".join(f"{n} {verdict}" for verdict, n in told.items()) or "no cell was selected"
        return f"Nothing was judged{where}: {silent}."
    some = findings(results)
    wrong = sum(f.verdict == WRONG for f in some)
    parts = [f"{told[PASS]} right"]
    if told[WRONG]:
        parts.append(f"{told[WRONG]} wrong ({_many(wrong, 'distinct finding')})")
    if told[BY_DESIGN]:
        parts.append(f"{told[BY_DESIGN]} different by design")
    if failed := told[ERROR] + told[TIMEOUT]:
        parts.append(f"{_many(failed, 'failure')} without an answer")
    rest = sum(told.values()) - judged(told) - failed
    if rest:
        parts.append(f"{rest} not tested")
    return f"Of {_many(sum(told.values()), 'step')}{where}: {', '.join(parts)}."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
