"""A results file as a page: what is right, what is wrong and what is by design, every row with its command.

    truestep table results.jsonl [more.jsonl ...] > reports/published/TRAINERS.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.patches import advisories

Row = Mapping[str, Any]
TITLES = {
    "wrong": "Wrong",
    "by-design": "By design: not what the whole batch makes, and the documentation says so",
    "pass": "Right",
    "incompatible": "Refused loudly, so nobody is misled",
    "not-triggered": "Not shown either way",
    "skipped": "Skipped",
    "error": "Errors",
    "timeout": "Timeouts",
}


def page(rows: Iterable[Row]) -> str:
    """Markdown; the last row of a cell counts, as a results file is appended to."""
    last = {row["id"]: row for row in rows}
    some = sorted(last.values(), key=lambda r: list(TITLES).index(r["verdict"]))
    versions: dict[str, str] = {}
    for row in some:
        versions.update(row.get("versions", {}))
    lines = ["# What is right, wrong and by design", "", "Versions: " + ", ".join(f"{n} {v}" for n, v in versions.items()) + ".",
             f"{len(some)} cells; the command of a row shows it in a few seconds.", ""]  # fmt: skip
    for verdict, group in groupby(some, key=lambda r: str(r["verdict"])):
        members = list(group)
        lines += [f"## {TITLES[verdict]} ({len(members)} cells)", ""]
        lines += _told_apart(members) if verdict in ("wrong", "by-design") else _together(members)
        lines.append("")
    return "\n".join(lines)


def _told_apart(rows: Sequence[Row]) -> list[str]:
    """One line for each finding: what one advisory explains, or else one question, check and kind of fault."""
    lines = ["| what | worst | cells | known as | command |", "|---|---|---|---|---|"]
    titles = {a.id: a for a in advisories()}

    def key(row: Row) -> tuple[str, ...]:
        kinds = (row.get("diagnosis") or {}).get("kinds", [])
        return (row.get("advisory") or "", row["cell"]["framework"], *(() if row.get("advisory") else (row.get("question", ""), *kinds)))

    for _, group in groupby(sorted(rows, key=key), key=key):
        members = sorted(group, key=lambda r: (len(r["id"]), r["id"]))
        first = members[0]
        words = (first.get("diagnosis") or {}).get("words", "") or first["reason"]
        advisory = titles.get(first.get("advisory") or "")
        what = f"{advisory.title}: {words}" if advisory else words
        known = f"[{advisory.id}]({advisory.links[0]})" if advisory and advisory.links else "not known: new"
        worst = max((_figure(r) for r in members), default=0.0)
        lines.append(f"| {_cell(what)} | {worst:.3g} | {len(members)} | {known} | `truestep run {first['id']}` |")
    return lines


def _figure(row: Row) -> float:
    return max((float(c["figure"]) for c in row.get("checks", []) if c["figure"] > c["bound"]), default=0.0)


def _together(rows: Sequence[Row]) -> list[str]:
    """One line for each question and framework, with what it was asked of."""
    lines = ["| question | framework | objectives | models | cells | command |", "|---|---|---|---|---|---|"]

    def key(row: Row) -> tuple[str, str]:
        return (row.get("question", "") or row.get("family", ""), row["cell"]["framework"])

    for (question, framework), group in groupby(sorted(rows, key=key), key=key):
        members = sorted(group, key=lambda r: (len(r["id"]), r["id"]))
        cells = [Cell.from_json(r["cell"]) for r in members]
        objectives, models = (_few(sorted({getattr(c, name) for c in cells})) for name in ("objective", "model"))
        lines.append(f"| {_cell(question)} | {framework} | {objectives} | {models} | {len(members)} | `truestep run {members[0]['id']}` |")
    return lines


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:7])} and {len(names) - 7} more"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:400]
