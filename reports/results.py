"""What was judged, read back from results files: environments, each with the last verdict of every cell.

Files of every earlier schema are read; one of a later schema is refused, with what to do. A line that is torn (a run that died, a full disk) costs
itself and is told. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from truestep.reports.verdict import RED

Row = Mapping[str, Any]
FIRST, SECOND = READABLE = ("truestep-results-1", "truestep-results-2")


class ResultsError(ValueError):
    """A results file that cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Run:
    """One process that judged cells.

    name : of its environment (a tox environment, or the stem of the results file); environment: ``snapshot.snapshot()``, of
    which older files know the versions alone; options: what was asked for (patch, setup, expect_known, selection)
    cells : how many were to be judged, 0 where not told; rows: its verdicts in the order they were reached
    complete : it came to its end with all of them; alive: it is still at work, on this machine
    """

    id: str
    name: str
    source: str
    started: str = ""
    finished: str = ""
    complete: bool = False
    alive: bool = False
    resumes: str = ""
    cells: int = 0
    environment: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    @property
    def packages(self) -> Mapping[str, str]:
        return dict(self.environment.get("packages", {}))

    @property
    def patched(self) -> bool:
        return bool(self.options.get("patch"))


@dataclass(frozen=True)
class Environment:
    """One column of the matrix: the same packages, the same options; of every cell its last verdict."""

    name: str
    runs: tuple[Run, ...]

    @property
    def last(self) -> Run:
        return self.runs[-1]

    @property
    def packages(self) -> Mapping[str, str]:
        return self.last.packages

    @property
    def patched(self) -> bool:
        return self.last.patched

    @property
    def complete(self) -> bool:
        return self.last.complete

    @cached_property
    def rows(self) -> Mapping[str, Row]:
        """Cell id -> its last verdict; a cell that was only skipped or failed later keeps nothing of before."""
        return {row["id"]: row for run in self.runs for row in run.rows}

    @property
    def stand_ins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for row in self.rows.values() for text in row.get("stand_ins", ())))


@dataclass(frozen=True)
class Results:
    """environments in the order of their names' first appearance; problems: lines that could not be read, each told in a line."""

    environments: tuple[Environment, ...] = ()
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[Environment, Row]]:
        for environment in self.environments:
            for row in environment.rows.values():
                yield environment, row

    @property
    def red(self) -> list[tuple[Environment, Row]]:
        return [(environment, row) for environment, row in self if row["verdict"] in RED]


def files(paths: Iterable[Path]) -> list[Path]:
    """The results files among them, a folder standing for all ``*.jsonl`` in it; raises ResultsError where there is none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise ResultsError(f"{path} holds no results (*.jsonl); make some with pytest probes/ --truestep-results FILE")
        found += inside
    return found


def read(paths: Iterable[Path]) -> Results:
    """Everything in these files and folders (and packed matrices, ``*.json``), merged.

    Raises ResultsError for a file that holds no verdict at all or that a later truestep wrote, OSError for one that cannot be opened.
    """
    from truestep.reports import pack

    runs: list[Run] = []
    problems: list[str] = []
    packed: list[Environment] = []
    for path in files(paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json":
            packed += pack.unpack(pack.parse(text, str(path)), str(path)).environments
            continue
        some, told = parse(text, str(path))
        runs += some
        problems += told
    merged = _environments(runs)
    return Results(_named_apart((*packed, *merged)), tuple(problems))


def parse(text: str, source: str) -> tuple[list[Run], list[str]]:
    """The runs of one file's text and the problems of its lines."""
    runs: dict[str, Run] = {}
    rows: dict[str, list[Row]] = {}
    problems: list[str] = []
    stem = Path(source).name.removesuffix(".jsonl")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for number, line in lines:
        try:
            record = json.loads(line)
            schema = str(record["schema"])
        except (ValueError, KeyError, TypeError):
            torn = " (the run that wrote it was cut off)" if number == lines[-1][0] else ""
            problems.append(f"{source}:{number}: not a result{torn}; the line is left out")
            continue
        if schema not in READABLE:
            raise ResultsError(f"{source}:{number}: has schema {schema!r}, this truestep reads {', '.join(READABLE)}: upgrade truestep")
        try:
            _take(record, stem, source, runs, rows)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{source}:{number}: not a result ({type(error).__name__}: {error}); the line is left out")
    if not runs:
        raise ResultsError(f"{source} holds no results; write results files with --truestep-results FILE")
    return [_finished(replace(run, rows=tuple(rows[run.id]))) for run in runs.values()], problems


def _take(record: dict[str, Any], stem: str, source: str, runs: dict[str, Run], rows: dict[str, list[Row]]) -> None:
    """Put one record where it belongs; raises KeyError, TypeError or ValueError for one that is not whole."""
    kind, one = record.get("record", "verdict"), str(record.get("run", f"{source}#1"))
    if kind == "run":
        known = ("name", "started", "resumes", "cells", "environment", "options")
        runs[one] = Run(one, source=source, alive=_alive(record), **{k: record[k] for k in known})
        rows.setdefault(one, [])
        return
    if one not in runs:  # the first schema has no run records
        runs[one] = Run(one, stem, source, complete="run" not in record)
        rows.setdefault(one, [])
    if kind == "end":
        cells = record.get("cells") or runs[one].cells
        runs[one] = replace(runs[one], finished=record["finished"], complete=bool(record["complete"]), cells=cells, alive=False)
    elif kind == "verdict":
        row = {k: v for k, v in record.items() if k not in ("schema", "record", "run")}
        row["id"] + row["verdict"] + row["cell"]["framework"]  # text, all three
        rows[one].append(row)
    # a kind of record that this truestep does not know says nothing about a cell


def _finished(run: Run) -> Run:
    """What the header of the first schema did not say, from its rows."""
    if run.environment:
        return run
    versions = {
        name: version
        for row in run.rows for name, version in (row.get("versions") or {}).items() if name not in ("python", "platform")
    }  # fmt: skip
    patched = any(line.startswith("applied") for row in run.rows for line in row.get("patches", ()))
    return replace(run, environment={"packages": versions}, options={"patch": patched}, cells=len({row["id"] for row in run.rows}))


def _alive(record: Mapping[str, Any]) -> bool:
    if record.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(record["pid"]), 0)
    except (OSError, KeyError, ValueError, TypeError):
        return False
    return True


def _environments(runs: Sequence[Run]) -> list[Environment]:
    """Runs of the same name, packages and patches are one environment; with other packages the newest has the name."""
    groups: dict[tuple[str, str, bool], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, json.dumps(dict(run.packages), sort_keys=True), run.patched), []).append(run)
    found = list(groups.items())
    for (name, _, patched), some in groups.items():
        if not some[0].environment.get("truestep"):  # the first schema knows the packages that its cells used, no others
            wider = [runs for (n, _, p), runs in found if (n, p) == (name, patched) and runs is not some and _within(some[0].packages, runs[0].packages)]
            if wider:
                wider[0][:0] = some
                found = [(key, runs) for key, runs in found if runs is not some]
    return [Environment(name, tuple(some)) for (name, _, _), some in found]


def _within(few: Mapping[str, str], many: Mapping[str, str]) -> bool:
    return all(many.get(name) == version for name, version in few.items())


def _named_apart(environments: Iterable[Environment]) -> tuple[Environment, ...]:
    """A second environment of a name says what is different in it."""
    found: dict[str, Environment] = {}
    for one in environments:
        name = one.name
        if name in found:
            first = found[name].packages
            other = [f"{k} {v}" for k, v in one.packages.items() if first.get(k) != v]
            name = f"{one.name} ({', '.join(other) or ('patched' if one.patched else 'again')})"
        while name in found:
            name += "+"
        found[name] = replace(one, name=name)
    return tuple(found.values())


def resumable(path: Path, name: str, environment: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, dict[str, Row], str]:
    """What the last run of that name in the file left to go on from.

    Returns its id ("" for none), its verdicts by cell id (and those it took over), and one line for people. Nothing is taken from a run that is
    complete, still at work, of other packages, options or code. Errors, timeouts and skipped cells are judged again.
    """
    if not path.exists() or not path.read_text(encoding="utf-8", errors="replace").strip():
        return "", {}, ""
    try:
        runs, _ = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except ResultsError as error:
        return "", {}, str(error)
    mine = [run for run in runs if run.name == name and run.environment.get("truestep")]
    if not mine or mine[-1].complete:
        return "", {}, ""
    last = mine[-1]
    if last.alive:
        return "", {}, f"another run (started {last.started}) is writing to {path} as well; both are kept"
    if why := _changed(last, environment, options):
        return "", {}, f"{path.name} is not resumed: {why}"
    kept = _chain({run.id: run for run in runs}, last.id)
    return last.id, kept, f"{path.name}: going on with {len(kept)} verdicts of the run of {last.started}, which did not come to its end"


def taken_over(path: Path, run: str) -> dict[str, Row]:
    """The verdicts that a run which resumes that one goes on with, by cell id."""
    runs, _ = parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    return _chain({one.id: one for one in runs}, run)


def _chain(runs: Mapping[str, Run], last: str) -> dict[str, Row]:
    """Its verdicts and those of the runs that it resumed; what is worth another try is left out."""
    rows: dict[str, Row] = {}
    while last in runs:
        rows = {row["id"]: row for row in runs[last].rows} | rows
        last = runs[last].resumes
    return {name: row for name, row in rows.items() if row["verdict"] not in ("error", "timeout", "skipped")}


def _changed(last: Run, environment: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    then, now = last.packages, dict(environment["packages"])
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            return f"{name} was {then.get(name, 'not installed')}, now it is {now.get(name, 'not installed')}"
    if last.environment["truestep"].get("code") != environment["truestep"]["code"]:
        return "truestep itself has changed since"
    for name in ("patch", "setup"):
        if last.options.get(name) != options.get(name):
            return f"{name} was {last.options.get(name)}, now it is {options.get(name)}"
    return ""
