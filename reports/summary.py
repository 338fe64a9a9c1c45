"""The job summary in Markdown (``$GITHUB_STEP_SUMMARY``, a merge request's comment): what is wrong first, hostile text escaped, size bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from truestep.reports.baseline import Accepted
from truestep.reports.compare_runs import FIXED, MISSING, NEW, Comparison, arrow
from truestep.reports.findings import Finding, counts, findings, headline
from truestep.reports.gate import FINDINGS, UNUSABLE, Outcome
from truestep.reports.results import Results
from truestep.reports.verdict import VERDICTS

#: GitHub drops a summary above 1 MiB whole; this page stays far below. Rows of a table, characters of a text.
LIMIT, ROWS, TEXT = 256 * 1024, 60, 300


def escaped(text: str, most: int = TEXT) -> str:
    """One line of plain text: no markup, no HTML, no table, no mention comes of it."""
    text = " ".join(text.split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = "".join(c if c.isprintable() else "�" for c in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#|~])", r"\\\1", text).replace("@", "@\u200b")


def code(text: str) -> str:
    """As code, also within a table: a fence longer than any in the text, pipes escaped."""
    text = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def link(text: str, address: str) -> str:
    """A link where the address is one; else the text alone."""
    if not address.startswith(("https://", "http://")):
        return escaped(text)
    return f"[{escaped(text)}]({quote(address, safe=':/?#@!$&*+,;=%~-._')})"


def render(results: Results, outcome: Outcome, comparison: Comparison | None = None, title: str = "truestep") -> str:
    some = findings(results)
    mark = {FINDINGS: "❌", UNUSABLE: "⚠️"}.get(outcome.code, "⚠️" if outcome.notes else "✅")
    blocks = [
        [f"## {mark} {escaped(title)}", "", f"**{escaped(headline(results))}**"],
        [f"- {escaped(text)}" for text in _few([*outcome.reasons, *outcome.notes])],
        list(_environments(results)),
        list(_findings([f for f in some if f.red], outcome)),
        list(against(comparison)) if comparison is not None else [],
        list(_accepted(results, outcome)),
        list(_by_design([f for f in some if not f.red])),
        ["Lines that could not be read:", "", *(f"- {escaped(text)}" for text in _few(results.problems))] if results.problems else [],
    ]
    text = ""
    for block in filter(None, blocks):
        more = "\n".join(block) + "\n\n"
        if len((text + more).encode()) > LIMIT:
            text += "The rest is left out: it is in the full report.\n"
            break
        text += more
    return text


def _few(texts: Sequence[str], most: int = ROWS) -> list[str]:
    rest = len(texts) - most
    return [*texts[:most], *([f"and {rest} more"] if rest > 0 else [])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], what: str) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows[:ROWS]:
        yield f"| {' | '.join(row)} |"
    if len(rows) > ROWS:
        yield ""
        yield f"{len(rows) - ROWS} more {what} are in the full report."


def _environments(results: Results) -> Iterator[str]:
    told = [(one, counts(one.rows.values())) for one in results.environments]
    shown = [v for v in VERDICTS if v in ("pass", "wrong") or any(c[v] for _, c in told)]
    rows = [
        [escaped(one.name) + ("" if one.complete else " (unfinished)"), str(sum(c.values())), *(str(c[v] or "·") for v in shown)] for one, c in told
    ]
    yield from _table(["environment", "cells", *shown], rows, "environments")


def _findings(some: Sequence[Finding], outcome: Outcome) -> Iterator[str]:
    if not some:
        return
    yield "### Findings"
    yield ""
    rows = []
    for one in some:
        accepted = sum(outcome.accepts(name, row["id"]) is not None for name, found in one.where.items() for row in found)
        cells = f"{one.cells}" + (f" ({accepted} accepted)" if accepted else "")
        rows.append([_what(one), known_as(one), _figure(one.worst), cells, _places(one.where), code(one.command)])
    yield from _table(["what was done", "known as", "worst error", "cells", "environments", "see it"], rows, "findings")


def _what(one: Finding) -> str:
    return f"{escaped(one.title)}: {escaped(one.words)}" if one.advisory is not None else escaped(one.words)


def known_as(one: Finding) -> str:
    if one.advisory is not None:
        return link(one.bug, one.advisory.links[0] if one.advisory.links else "")
    return "not known: looks new" if one.verdict == "wrong" else escaped(one.verdict)


def _places(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    return ", ".join(escaped(n) for n in listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def against(comparison: Comparison) -> Iterator[str]:
    yield "### Against the earlier run"
    yield ""
    yield escaped(comparison.sentence)
    for text in _few(comparison.alone):
        yield f"- {escaped(text)}"
    for kind, words in ((NEW, "New"), (FIXED, "Fixed"), (MISSING, "No longer judged (not fixed)")):
        some = comparison.of(kind)
        if some:
            yield ""
            yield f"{words}:"
            yield ""
            rows = [
                [code(c.cell), escaped(c.environment), escaped(c.bug), f"{escaped(c.before)} → {escaped(c.after)}", arrow([c]).removeprefix(", off by ")]
                for c in some
            ]
            yield from _table(["cell", "environment", "bug", "verdict", "error"], rows, "cells")


def _accepted(results: Results, outcome: Outcome) -> Iterator[str]:
    groups: dict[Accepted, int] = {}
    for found in outcome.accepted.values():
        if isinstance(found, Accepted):
            groups[found] = groups.get(found, 0) + 1
    if groups:
        yield "### Accepted"
        yield ""
        rows = [[escaped(a.entry.bug), str(n), a.entry.expires.isoformat(), escaped(a.entry.reason)] for a, n in sorted(groups.items(), key=lambda g: g[0].entry.expires)]
        yield from _table(["bug", "cells", "until", "why"], rows, "accepted findings")


def _by_design(some: Sequence[Finding]) -> Iterator[str]:
    if some:
        yield "### Different by design"
        yield ""
        rows = [[_what(one), known_as(one), str(one.cells), code(one.command)] for one in some]
        yield from _table(["what is done", "documented in", "cells", "see it"], rows, "documented choices")
