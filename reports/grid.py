"""The matrix of one framework: releases across, configurations down, and what is known where they meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from packaging.version import InvalidVersion, Version
from truestep.fixtures.cell import CellError
from truestep.reports.configurations import ORDER, Configuration, configuration
from truestep.reports.findings import JUDGED, Finding, findings
from truestep.reports.results import Environment, Results, Row, Run
from truestep.reports.terminal import fingerprint

#: of several verdicts of one cell in one column, the first of these counts
WORST = ("wrong", "error", "timeout", "by-design", "pass", "not-triggered", "incompatible", "skipped")
#: how a reason begins where a cell was selected and never reached
NOT_REACHED = "not run"
#: how the name of a partial rerun ends
AGAIN = "-again"


@dataclass(frozen=True)
class Field:
    """Where a release and a configuration meet: cells by what became of them; missing: judged in another release, not run in this one."""

    right: int = 0
    wrong: int = 0
    chosen: int = 0
    failed: int = 0
    refused: int = 0
    silent: int = 0
    missing: int = 0
    bugs: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def judged(self) -> int:
        return self.right + self.wrong + self.chosen

    @property
    def state(self) -> str:
        """wrong, ok, choice, failed, refused, silent, or "" for what was not run. Right only where something passed and nothing is wrong."""
        if self.wrong:
            return "wrong"
        if self.failed:
            return "failed"
        if self.judged:
            return "ok" if self.right else "choice"
        return "refused" if self.refused else "silent" if self.silent else ""


@dataclass(frozen=True)
class Column:
    """A release: all environments that have the same versions of what the cells stand on.

    version : of the framework; besides: what tells it from another column of that version; cells: id -> the row that counts
    disagree : cells that one environment found right and another wrong (they count as wrong)
    """

    version: str
    besides: str
    patched: bool
    environments: tuple[Environment, ...]
    cells: Mapping[str, Row] = field(repr=False)
    disagree: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " ".join(filter(None, [self.version, f"({self.besides})" if self.besides else "", "patched" if self.patched else ""]))

    @property
    def unfinished(self) -> bool:
        return not all(one.complete for one in self.environments)


@dataclass(frozen=True)
class Grid:
    """rows: in order; fields[i][j]: of configuration i in column j; rows in which nothing was judged anywhere are left out."""

    framework: str
    columns: tuple[Column, ...]
    rows: tuple[Configuration, ...]
    fields: tuple[tuple[Field, ...], ...]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Of this framework's cells; where: by the label of the column."""
        environments = [Environment(c.label, (Run(c.label, c.label, "", rows=tuple(c.cells.values())),)) for c in self.columns]
        return tuple(findings(Results(tuple(environments))))


def grids(results: Results) -> list[Grid]:
    """One for each framework that has cells, DeepSpeed first."""
    names = {row["cell"]["framework"] for _, row in results}
    return [grid(results, name) for name in sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))]


def grid(results: Results, framework: str) -> Grid:
    groups: dict[tuple[Any, ...], list[Environment]] = {}
    stands_on = _stands_on(framework)
    for one in results.environments:
        if any(row["cell"]["framework"] == framework for row in one.rows.values()):
            versions = tuple(one.packages.get(name, "") for name in stands_on)
            groups.setdefault((versions, one.patched), []).append(one)
    ordered = sorted(groups, key=lambda key: ([order(v) for v in key[0]], key[1]))
    # what tells two columns of one version apart is told in every column
    apart = sorted({i for one, _ in groups for other, _ in groups if one[0] == other[0] for i, v in enumerate(one) if v != other[i]})
    columns = []
    for versions, patched in ordered:
        besides = ", ".join(f"{stands_on[i]} {versions[i]}" for i in apart if versions[i])
        columns.append(_column(framework, versions[0] or "not recorded", besides, patched, groups[versions, patched]))
    return _filled(framework, columns)


def coarser(one: Grid) -> Grid:
    """The same with the rows of the picture."""
    return _filled(one.framework, one.columns, short=True)


def order(version: str) -> tuple[bool, Any]:
    try:
        return True, Version(version)
    except InvalidVersion:
        return False, version


def _stands_on(framework: str) -> tuple[str, ...]:
    """The framework itself first, torch too."""
    from truestep.fixtures.drivers import packages_of

    try:
        below = packages_of(framework)
    except (CellError, AttributeError):  # a driver that is not installed here
        below = ()
    return tuple(dict.fromkeys((framework, *below, "torch")))


def _column(framework: str, version: str, besides: str, patched: bool, environments: Sequence[Environment]) -> Column:
    cells: dict[str, Row] = {}
    disagree = []
    for one in environments:
        for name, row in one.rows.items():
            if row["cell"]["framework"] != framework:
                continue
            before = cells.get(name)
            if before is not None and {before["verdict"], row["verdict"]} == {"pass", "wrong"}:
                disagree.append(name)
            cells[name] = row if before is None else min(before, row, key=lambda r: WORST.index(r["verdict"]))
    return Column(version, besides, patched, tuple(environments), cells, tuple(dict.fromkeys(disagree)))


def _filled(framework: str, columns: Sequence[Column], short: bool = False) -> Grid:
    where: dict[str, Configuration] = {}
    judged: dict[Configuration, set[str]] = {}
    for column in columns:
        for name, row in column.cells.items():
            if name not in where:
                made = configuration(row)
                where[name] = Configuration(made.short[0], made.short[1], "", made.short) if short else made
            if row["verdict"] in JUDGED:
                judged.setdefault(where[name], set()).add(name)
    rows = sorted(judged, key=lambda c: (c.order, c.first, c.second))
    numbers = {row: i for i, row in enumerate(rows)}
    fields = []
    for column in columns:
        members: list[list[Row]] = [[] for _ in rows]
        for name, row in column.cells.items():
            if where[name] in numbers:
                members[numbers[where[name]]].append(row)
        fields.append([_field(some, judged[row]) for row, some in zip(rows, members, strict=True)])
    return Grid(framework, tuple(columns), tuple(rows), tuple(zip(*fields, strict=True)) if rows else ())


def _field(rows: Iterable[Row], elsewhere: set[str]) -> Field:
    """elsewhere: the cells of this configuration that were judged in any release."""
    told: Counter[str] = Counter()
    bugs: dict[str, Counter[str]] = {"wrong": Counter(), "by-design": Counter()}
    reached = set()
    for row in rows:
        if row["verdict"] == "skipped" and row.get("reason", "").startswith(NOT_REACHED):
            continue
        reached.add(row["id"])
        told[row["verdict"]] += 1
        if row["verdict"] in bugs:
            bugs[row["verdict"]][fingerprint(row)] += 1
    ordered = {verdict: tuple(sorted(some, key=lambda bug: (-some[bug], bug))) for verdict, some in bugs.items()}
    return Field(
        told["pass"], told["wrong"], told["by-design"], told["error"] + told["timeout"], told["incompatible"], told["not-triggered"] + told["skipped"],
        len(elsewhere - reached), ordered["wrong"], ordered["by-design"],
    )  # fmt: skip


def folded(results: Results) -> Results:
    """With every environment ``NAME-again``, a partial rerun, as a later run of NAME, where packages and patches are the same.

    That NAME was complete is not changed by it. One of other packages stays an environment of its own.
    """
    by_name = {one.name: one for one in results.environments}
    gone = set()
    for one in results.environments:
        base = by_name.get(one.name.removesuffix(AGAIN)) if one.name.endswith(AGAIN) else None
        if base is None or base.patched != one.patched or not _alike(base.packages, one.packages):
            continue
        runs = tuple(replace(run, complete=base.complete) for run in one.runs)
        by_name[base.name] = Environment(base.name, (*base.runs, *runs))
        gone.add(one.name)
    return replace(results, environments=tuple(by_name[one.name] for one in results.environments if one.name not in gone))


def _alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Nothing that both tell differs, and they tell something in common."""
    common = set(one) & set(other)
    return bool(common) and all(one[name] == other[name] for name in common)
