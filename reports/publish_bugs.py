"""The bugs of a published table, each in a line: where it was seen, where it is fixed, what it does to the step, how to see it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from truestep.reports import summary
from truestep.reports.findings import Finding
from truestep.reports.grid import Grid
from truestep.reports.summary import escaped
from truestep.reports.verdict import BY_DESIGN, WRONG

TEXT = 1000  # characters of a sentence


def anchor(framework: str, bug: str) -> str:
    return re.sub("[^a-z0-9]+", "-", f"{framework}-{bug}".lower()).strip("-")


def link(framework: str, bug: str) -> str:
    """To the line of that bug; its prefix is left out where it says nothing."""
    label = bug.removeprefix("truestep-").removeprefix(f"{framework}-").replace("unknown:", "not known: ")
    return f"[{escaped(label)}](#{anchor(framework, bug)})"


def listed(grid: Grid) -> Iterator[str]:
    """Those that are wrong, then documented choices; the most cells first."""
    for verdict, head in ((WRONG, "Bugs seen"), (BY_DESIGN, "Documented choices")):
        groups: dict[str, list[Finding]] = {}
        for one in grid.findings:
            if one.verdict == verdict:
                groups.setdefault(one.bug, []).append(one)
        if groups:
            yield f"**{head}** ({len(groups)}), those of most cells first; a figure is the largest relative error of a gradient or of what else was compared:"
            yield ""
            for bug in sorted(groups, key=lambda name: (-sum(one.cells for one in groups[name]), name)):
                yield _line(grid, bug, groups[bug])
            yield ""


def _line(grid: Grid, bug: str, some: Sequence[Finding]) -> str:
    first = max(some, key=lambda one: one.cells)
    advisory = first.advisory
    seen = [column.label for column in grid.columns if any(column.label in one.where for one in some)]
    figures = [one.worst for one in some if one.worst is not None]
    worst = max(figures, key=lambda f: (f != f, f), default=None)
    parts = [f"seen in {spans(seen, [column.label for column in grid.columns])} ({_cells(sum(one.cells for one in some))})"]
    if advisory is not None:
        parts.append(_fixed(advisory))
    if worst is not None:
        parts.append(f"worst {worst:.3g}" if worst == worst else "not a number")
    said = f"{escaped(first.words, TEXT)}{_weights(first)}"
    if first.row.get("besides"):
        said += f"; {escaped(', '.join(first.row['besides']))} besides, which it does not explain"
    parts += [said, summary.code(first.command), *_cure(advisory)]
    title = escaped(advisory.title, TEXT) if advisory is not None else "no advisory explains it"
    return f'- <a id="{anchor(grid.framework, bug)}"></a>**{_called(bug, advisory)}**: {title}. {"; ".join(_capital(parts))}.'


def _called(bug: str, advisory: Any) -> str:
    known = advisory is not None and advisory.links
    return summary.link(bug, advisory.links[0]) if known else escaped(bug.replace("unknown:", "not known: "))


def _capital(parts: list[str]) -> list[str]:
    return [parts[0][:1].upper() + parts[0][1:], *parts[1:]]


def _fixed(advisory: Any) -> str:
    package = "" if not advisory.framework else f"{advisory.framework} "
    if advisory.by_design:
        return f"documented since {package}{advisory.affected[0][0]}"
    return " and ".join(f"fixed in {package}{fixed}" if fixed else f"not fixed in any release of {package}".strip() for _, fixed in advisory.affected)


def _weights(one: Finding) -> str:
    """Of the micro-batches, as a fraction of the whole batch; "" where none are known."""
    diagnosis = one.row.get("diagnosis") or {}
    rows = [[float(w) for w in rank] for rank in diagnosis.get("weights") or ()]
    parts = sum(len(rank) for rank in rows)
    doubt = max(1e-6, 2 * float(diagnosis.get("doubt") or 0.0))
    if all(abs(w - 1) <= max(1e-3, doubt) for rank in rows for w in rank):
        return ""  # the micro-batches weigh what they should: the fault is another one

    def short(weight: float) -> str:
        return "0" if abs(weight) <= doubt else f"{weight:.3g}"

    if parts == 1:
        return f", effective weight {short(rows[0][0])} where 1 is right"
    told = "; ".join(f"({', '.join(short(w) for w in rank)})/{parts}" + (f" on rank {n}" if len(rows) > 1 else "") for n, rank in enumerate(rows))
    return f", effective weights {told} where 1/{parts} each is right"


def _cure(advisory: Any) -> list[str]:
    if advisory is None:
        return []
    if advisory.by_design:
        return []
    return ["cure: upgrade, or `truestep.patch()`" if advisory.patch and _ends(advisory) else "cure: `truestep.patch()`" if advisory.patch
            else "cure: upgrade" if _ends(advisory) else "no patch"]  # fmt: skip


def _ends(advisory: Any) -> bool:
    return bool(advisory.affected and advisory.affected[-1][1])


def spans(some: Sequence[str], every: Sequence[str]) -> str:
    """Labels, those that stand side by side in ``every`` as a span of three or more."""
    groups: list[list[str]] = []
    for label in every:
        if label not in some:
            groups.append([])
        elif groups and groups[-1]:
            groups[-1].append(label)
        else:
            groups.append([label])
    return ", ".join(_span(group) for group in groups if group)


def _span(group: Sequence[str]) -> str:
    return ", ".join(map(escaped, group)) if len(group) < 3 else f"{escaped(group[0])} to {escaped(group[-1])}"


def _cells(number: int) -> str:
    return f"{number:,} cell{'s' * (number != 1)}"


_ALIKE = (
    (r"the tolerance \S+ is wider than a third of the error to be caught \(\S+\)", "rounding hides errors of the size to be caught"),
    (r"\bhas no (?:ppo\w*|dapo|gspo): it is in .*", "has no such objective in this release"),
    (r"\b\d+(?:\.\d+)+(?:\.?(?:post|rc|dev|a|b)\d+)?\b", "…"),
    (r"(?<=')id': \d+.*", "id': …"),
    (r"(?<=The parameter )\S+(?= has already been reduced)", "…"),
)


def without_versions(reason: str) -> str:
    """Reasons that differ in a release or a figure alone are one reason."""
    reason = re.sub("\x1b\\[[0-9;]*m", "", reason.split(" (tolerance")[0])
    for pattern, instead in _ALIKE:
        reason = re.sub(pattern, instead, reason)
    return reason

