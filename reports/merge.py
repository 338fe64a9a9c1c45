"""Several results files as one: every record of every run once, in the order in which it was reached."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truestep.reports.results import FIRST, ResultsError, Run, files, parse
from truestep.reports.store import SCHEMA


@dataclass
class _Run:
    """head: its run record; source: of that; lines: its other records as JSON text."""

    head: str = ""
    source: str = ""
    lines: list[str] = field(default_factory=list)


def merge(paths: Iterable[Path]) -> tuple[list[str], list[str]]:
    """The lines of the merged file, and the problems of lines that could not be read.

    A run that is in two inputs (a copy, a part of it) is there once with all its records. A file of the first schema becomes a run of its own.
    Raises ResultsError for what cannot be merged without loss.
    """
    runs: dict[str, _Run] = {}
    problems: list[str] = []
    for path in dict.fromkeys(files(paths)):
        if path.suffix == ".json":
            raise ResultsError(f"{path} is a matrix and keeps one check of a verdict: merge the results files (*.jsonl) that it was made of")
        text = path.read_text(encoding="utf-8", errors="replace")
        parsed, told = parse(text, str(path))
        problems += told
        for identifier, one in _records(text, path, {run.id: run for run in parsed}).items():
            _join(runs.setdefault(identifier, _Run()), one, identifier)
    return [line for one in runs.values() for line in (one.head, *_ends_last(one.lines))], problems


def _records(text: str, path: Path, runs: Mapping[str, Run]) -> dict[str, _Run]:
    """The readable records of one file by run; one without a run record is given the one that stands for it."""
    found: dict[str, _Run] = {}
    stem = path.name.removesuffix(".jsonl")
    begins = next((line for line in text.splitlines() if line.strip()), "")  # a copy of a part of the file is the same run
    content = hashlib.sha256(f"{stem}\n{begins}".encode()).hexdigest()[:12]
    for line in text.splitlines():
        try:
            record = json.loads(line)
            schema, kind = record["schema"], record.get("record", "verdict")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # told by ``parse``
        identifier = str(record.get("run", content))
        one = found.setdefault(identifier, _Run(source=str(path)))
        if kind == "run":
            one.head = _text(record)
        else:
            one.lines.append(_text({"schema": SCHEMA, "run": identifier, "record": "verdict", **record, **({"schema": SCHEMA} if schema == FIRST else {})}))
    for identifier, one in found.items():
        run = runs.get(identifier) or runs.get(f"{path}#1")
        if not one.head and run is not None:
            one.head = _head(identifier, run)
            if run.complete and not any(json.loads(line)["record"] == "end" for line in one.lines):
                one.lines.append(_text({"schema": SCHEMA, "run": identifier, "record": "end", "finished": run.finished, "complete": True}))
    return found


def _head(identifier: str, run: Run) -> str:
    """What a run record would have said, as far as its verdicts tell."""
    return _text({
        "schema": SCHEMA, "run": identifier, "record": "run", "name": run.name, "started": run.started, "pid": 0, "host": "",
        "environment": dict(run.environment), "options": dict(run.options), "cells": run.cells, "resumes": run.resumes,
    })  # fmt: skip


def _join(into: _Run, one: _Run, identifier: str) -> None:
    """Add what is not there yet; a record that one file has twice stays twice."""
    if into.head and one.head and into.head != one.head and not _made_up(one.head):
        if not _made_up(into.head):
            raise ResultsError(f"run {identifier} begins differently in {into.source} and in {one.source}: one of them was edited")
        into.head = ""
    if not into.head or (one.head and _made_up(into.head)):
        into.head, into.source = one.head, one.source
    have = Counter(into.lines)
    for line in one.lines:
        if have[line]:
            have[line] -= 1
        else:
            into.lines.append(line)


def _made_up(head: str) -> bool:
    return '"pid": 0, "host": ""' in head


def _ends_last(lines: list[str]) -> list[str]:
    return sorted(lines, key=lambda line: json.loads(line).get("record") == "end")


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record)
