"""The baseline: findings that somebody accepted, for a reason and until a day.

A JSON file of schema ``truestep-baseline-1`` (docs/schema.md). An entry names a bug (an advisory id, or the fingerprint of a finding that no
advisory explains) and the cells in which it is accepted. An entry that is over its date, or whose cells are right by now, is told: neither may
stay. A cell that was not judged in a run says nothing about its entry. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from truestep.reports.results import Row
from truestep.reports.verdict import BY_DESIGN, ERROR, PASS, RED, TIMEOUT, WRONG

SCHEMA = "truestep-baseline-1"
KEYS = ("bug", "cells", "reason", "expires")


class BaselineError(ValueError):
    """A baseline that cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Entry:
    """bug: advisory id or fingerprint; cells: ids, sorted; expires: the last day on which it holds."""

    bug: str
    cells: tuple[str, ...]
    reason: str
    expires: date

    def to_json(self) -> dict[str, Any]:
        return {"bug": self.bug, "cells": list(self.cells), "reason": self.reason, "expires": self.expires.isoformat()}


@dataclass(frozen=True)
class Accepted:
    """This finding is known and borne."""

    entry: Entry

    def __str__(self) -> str:
        return f"accepted until {self.entry.expires}: {self.entry.reason}"


@dataclass(frozen=True)
class Expired:
    """This finding was accepted, but not any longer."""

    entry: Entry

    def __str__(self) -> str:
        return f"accepted only until {self.entry.expires}, which is over ({self.entry.reason})"


@dataclass(frozen=True)
class Baseline:
    """What is accepted. ``path`` is named in messages."""

    entries: tuple[Entry, ...] = ()
    path: str = ""

    @cached_property
    def _index(self) -> Mapping[tuple[str, str], Entry]:
        return {(cell, entry.bug): entry for entry in self.entries for cell in entry.cells}

    def entry(self, row: Row) -> Entry | None:
        """The entry under which that finding is accepted, expired or not."""
        return next((entry for name in names(row) if (entry := self._index.get((row["id"], name)))), None)

    def judge(self, row: Row, today: date) -> Accepted | Expired | None:
        """What the baseline says of a finding; None: it is not in there, or the row is no finding."""
        entry = self.entry(row) if row["verdict"] in RED else None
        if entry is None:
            return None
        return Expired(entry) if entry.expires < today else Accepted(entry)

    def expired(self, today: date) -> list[Entry]:
        """The entries that are over, whether their finding is still there or not."""
        return [entry for entry in self.entries if entry.expires < today]

    def stale(self, rows: Iterable[Row], today: date) -> list[Entry]:
        """The entries with those of their cells that were judged and show that bug no more: they can be removed.

        rows : of all environments of a run. A cell that fails in one of them (error, timeout) is not known to be right everywhere. What is expired
        is told as that, not as stale too.
        """
        found: set[tuple[str, str]] = set()
        answered: set[str] = set()
        failed: set[str] = set()
        for row in rows:
            if row["verdict"] in RED:
                found |= {(row["id"], name) for name in names(row)}
            if row["verdict"] in (PASS, WRONG, BY_DESIGN):
                answered.add(row["id"])
            elif row["verdict"] in (ERROR, TIMEOUT):
                failed.add(row["id"])
        over = []
        for entry in self.entries:
            cells = tuple(c for c in entry.cells if c in answered and c not in failed and (c, entry.bug) not in found)
            if cells and entry.expires >= today:
                over.append(replace(entry, cells=cells))
        return over

    def to_json(self) -> str:
        """Sorted and one cell a line, so that a difference shows what was accepted."""
        entries = sorted(self.entries, key=lambda e: (e.bug, e.expires, e.reason, e.cells))
        return json.dumps({"schema": SCHEMA, "entries": [entry.to_json() for entry in entries]}, indent=1, ensure_ascii=False) + "\n"


def names(row: Row) -> tuple[str, ...]:
    """The names under which a finding may be in a baseline or an earlier run: its own, and the one it had before an advisory knew it."""
    from truestep.reports.terminal import fingerprint

    own = fingerprint(row)
    if row["verdict"] != WRONG or not row.get("advisory") or row.get("besides"):
        return (own,)
    kinds = (row.get("diagnosis") or {}).get("kinds") or row.get("kinds", ())
    before = fingerprint({**row, "advisory": "", "fingerprint": "", "diagnosis": {"kinds": kinds}})
    return (own, before)


def load(path: Path) -> Baseline:
    """The baseline in that file; raises BaselineError with one line for a bad one, OSError for one that cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaselineError(f"{path} is not JSON ({error}); write a baseline with truestep baseline RESULTS -o {path}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        schema = data.get("schema") if isinstance(data, dict) else None
        raise BaselineError(f"{path} has schema {schema!r}, this truestep reads {SCHEMA}; write one with truestep baseline RESULTS -o FILE")
    _only(data, ("schema", "entries"), str(path))
    if not isinstance(data.get("entries"), list):
        raise BaselineError(f"{path}: 'entries' must be a list")
    entries = tuple(_entry(one, f"{path}: entry {number}") for number, one in enumerate(data["entries"], start=1))
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        for cell in entry.cells:
            if (cell, entry.bug) in seen:
                raise BaselineError(f"{path}: {cell} is accepted twice for {entry.bug}; keep one of the two")
            seen.add((cell, entry.bug))
    return Baseline(entries, str(path))


def _entry(data: Any, where: str) -> Entry:
    if not isinstance(data, dict):
        raise BaselineError(f"{where} must be an object with {', '.join(KEYS)}")
    _only(data, KEYS, where)
    for key in KEYS:
        if key not in data:
            raise BaselineError(f"{where} has no {key!r}")
    bug, cells, reason = data["bug"], data["cells"], data["reason"]
    if not isinstance(bug, str) or not bug:
        raise BaselineError(f"{where}: 'bug' must be an advisory id or the fingerprint of a finding")
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, str) and cell for cell in cells):
        raise BaselineError(f"{where} ({bug}): 'cells' must be a list of cell ids, one at least")
    if not isinstance(reason, str) or not reason.strip():
        raise BaselineError(f"{where} ({bug}): 'reason' is empty; say why this finding is accepted")
    return Entry(bug, tuple(cells), reason, day(data["expires"], f"{where} ({bug}): 'expires'"))


def _only(data: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    if unknown := [key for key in data if key not in keys]:
        raise BaselineError(f"{where}: unknown key {unknown[0]!r}; use {', '.join(keys)}")


def day(text: Any, where: str) -> date:
    """A date written YYYY-MM-DD, and in no other way."""
    try:
        found = date.fromisoformat(text)
        if found.isoformat() == text:
            return found
    except (TypeError, ValueError):
        pass
    raise BaselineError(f"{where} must be a date, YYYY-MM-DD, not {text!r}")


def accept(rows: Iterable[Row], reason: str, expires: date | None, before: Baseline | None = None) -> Baseline:
    """A baseline of every finding among these rows.

    before : entries of it that are still there, or of which this run says nothing, keep their reason and date; the others go
    Raises BaselineError where a finding that is not in ``before`` has no reason or no date.
    """
    rows = list(rows)
    kept: dict[tuple[str, str], Entry] = {}
    if before is not None:
        over = {(cell, entry.bug) for entry in before.stale(rows, date.min) for cell in entry.cells}
        kept = {key: entry for key, entry in before._index.items() if key not in over}
    new = {(row["id"], names(row)[0]) for row in rows if row["verdict"] in RED and not any((row["id"], name) in kept for name in names(row))}
    if new and not reason.strip():
        raise BaselineError(f"{len(new)} findings are not accepted yet; say why they are: --reason TEXT")
    if new and expires is None:
        raise BaselineError(f"{len(new)} findings are not accepted yet; say until when they are: --expires YYYY-MM-DD")
    groups: dict[tuple[str, str, date], list[str]] = {}
    for (cell, _), entry in kept.items():
        groups.setdefault((entry.bug, entry.reason, entry.expires), []).append(cell)
    for cell, bug in sorted(new):
        assert expires is not None
        groups.setdefault((bug, reason, expires), []).append(cell)
    entries = [Entry(bug, tuple(sorted(cells)), why, until) for (bug, why, until), cells in groups.items()]
    return Baseline(tuple(entries), before.path if before else "")
