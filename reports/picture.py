"""The matrix of one framework as an SVG: releases across, configurations down; every square has a colour and says the same in letters.

It has a ground of its own, light or dark as the reader's system is, so it can be read on any page. No script, font or address outside the file.
"""

from __future__ import annotations

from truestep.reports.configurations import NAMES
from truestep.reports.grid import Column, Field, Grid
from truestep.reports.html_parts import text as text_of

#: class -> what it means, in the order of the legend; the letters stand in the squares
LEGEND = (
    ("ok", "ok", "nothing wrong in what was judged"),
    ("few", "ok 4%", "the same, but only 4 % of its cells were run"),
    ("some", "W 4%", "wrong in 4 % of the cells that were judged"),
    ("most", "W 60%", "wrong in half of them or more"),
    ("choice", "C", "differs by design, as documented"),
    ("failed", "F", "failed without an answer"),
    ("refused", "R", "refused loudly, or not offered"),
    ("silent", "?", "run, no answer"),
    ("none", "–", "not run"),
)
_STYLE = """
:root{color-scheme:light dark}
text{font:12px system-ui,-apple-system,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;fill:#1b1e22}
.ground{fill:#ffffff;stroke:#d0d4d9}.muted{fill:#59616b}.head{font-size:14px;font-weight:600}.mid{text-anchor:middle}.end{text-anchor:end}
.ok{fill:#d7eee4}.t-ok{fill:#0a4a38}.some{fill:#f6c9b4}.t-some{fill:#5e1a04}.most{fill:#b83a12}.t-most{fill:#ffffff;font-weight:600}
.few{fill:#eef0f2}.t-few{fill:#4f565e}.choice{fill:#e3daf6}.t-choice{fill:#432f74}.failed{fill:#6d1733}.t-failed{fill:#ffffff}.refused{fill:#e4e6e9}.t-refused{fill:#3f464e}
.silent{fill:#eef0f2}.t-silent{fill:#4f565e}.none{fill:none;stroke:#c3c8ce;stroke-dasharray:3 3}.t-none{fill:#59616b}
.part{fill:none;stroke:#3f464e;stroke-dasharray:3 2;stroke-width:1.3}
@media (prefers-color-scheme:dark){
text{fill:#e6e8ea}.ground{fill:#14181d;stroke:#30363d}.muted{fill:#9ca5ae}
.ok{fill:#17463a}.t-ok{fill:#b7f0dc}.some{fill:#6e3418}.t-some{fill:#ffd9c7}.most{fill:#f0794c}.t-most{fill:#210d04}
.few{fill:#262c33}.t-few{fill:#b3bac1}.choice{fill:#43376a}.t-choice{fill:#ded2fb}.failed{fill:#e59ab3}.t-failed{fill:#28060f}.refused{fill:#343b43}.t-refused{fill:#ced4da}
.silent{fill:#262c33}.t-silent{fill:#b3bac1}.none{stroke:#4a525a}.t-none{fill:#9ca5ae}.part{stroke:#ced4da}}
"""
_WIDE, _HIGH, _GAP, _LETTER = 50, 22, 2, 6.5


def svg(grid: Grid) -> str:
    """Of a grid with short rows (``grid.coarser``)."""
    name = NAMES.get(grid.framework, grid.framework)
    first = round(max((len(row.first) for row in grid.rows), default=10) * _LETTER) + 28
    headings = [_heading(column) for column in grid.columns]
    lines = max(len(h) for h in headings) if headings else 1
    top = 34 + 15 * lines + 8
    across = max(len(grid.columns), 1) * (_WIDE + _GAP)
    bottom = top + len(grid.rows) * (_HIGH + _GAP)
    width = max(first + across + 14, 640)
    per_line = max(1, (width - 28) // 290)
    height = bottom + 16 + 22 * -(-(len(LEGEND) + 1) // per_line) + 8
    parts = [f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>', _text(14, 24, f"{name}: is the optimizer step right?", "head")]
    for j, heading in enumerate(headings):
        x = first + j * (_WIDE + _GAP) + _WIDE / 2
        parts += [_text(x, top - 10 - 15 * (len(heading) - 1 - n), said, "mid" if n == 0 else "mid muted") for n, said in enumerate(heading)]
    for i, (row, fields) in enumerate(zip(grid.rows, grid.fields, strict=True)):
        y = top + i * (_HIGH + _GAP)
        parts.append(_text(first - 10, y + 15, row.first, "end"))
        for j, (column, field) in enumerate(zip(grid.columns, fields, strict=True)):
            kind, letters = said_in_letters(field)
            title = f"{name} {column.label}, {row.first}: {in_words(field)}"
            parts.append(_square(first + j * (_WIDE + _GAP), y, kind, letters, title, bool(field.missing) and kind != "none"))
    for n, (kind, letters, meaning) in enumerate((*LEGEND, ("part", "", "dashed: a part of its cells was not run"))):
        x, y = 14 + n % per_line * ((width - 28) // per_line), bottom + 16 + n // per_line * 22
        parts.append(_square(x, y, "silent" if kind == "part" else kind, letters, "", kind == "part", 18))
        parts.append(_text(x + _WIDE + 8, y + 14, meaning, "muted"))
    described = text_of(description(grid))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">'
        f'<title id="title">{text_of(name)}: which release takes the right optimizer step under which configuration</title><desc id="desc">{described}</desc>'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def said_in_letters(field: Field) -> tuple[str, str]:
    """(class, letters) of a square; green only where at least half of what any release was asked was judged here."""
    if field.state == "wrong":
        share = 100 * field.wrong // field.judged
        return "most" if 2 * field.wrong >= field.judged else "some", "W all" if share == 100 else f"W {share}%" if share else "W <1%"
    if field.state in ("ok", "choice") and field.missing > field.judged:
        share = 100 * field.judged // (field.judged + field.missing)
        return "few", f"ok {share}%" if share else "ok <1%"
    return {
        "ok": ("ok", "ok"), "choice": ("choice", "C"), "failed": ("failed", "F"), "refused": ("refused", "R"), "silent": ("silent", "?"), "": ("none", "–"),
    }[field.state]  # fmt: skip


def in_words(field: Field) -> str:
    """Of how many cells what became."""
    told = (
        (field.wrong, "wrong"), (field.right, "right"), (field.chosen, "different by design"), (field.failed, "failed without an answer"),
        (field.refused, "refused"), (field.silent, "without an answer"), (field.missing, "not run"),
    )  # fmt: skip
    return ", ".join(f"{count} {words}" for count, words in told if count) or "not run"


def description(grid: Grid) -> str:
    """The picture for those who do not see it: of every release the configurations that are wrong."""
    said = []
    for j, column in enumerate(grid.columns):
        wrong = [f"{row.first} ({f[j].wrong} of {f[j].judged} cells)" for row, f in zip(grid.rows, grid.fields, strict=True) if f[j].wrong]
        judged = sum(f[j].judged for f in grid.fields)
        answer = "wrong under " + "; ".join(wrong) if wrong else "nothing found wrong" if judged else "no answer"
        said.append(f"{column.label}{' (unfinished)' if column.unfinished else ''}: {answer}.")
    return " ".join(said)


def _heading(column: Column) -> list[str]:
    return [column.version + "*" * column.unfinished, *([f"({column.besides})"] if column.besides else []), *(["patched"] if column.patched else [])]


def _text(x: float, y: float, said: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{text_of(said)}</text>'


def _square(x: float, y: float, kind: str, letters: str, title: str, part: bool, high: int = _HIGH) -> str:
    edge = f'<rect class="part" x="{x + 1:g}" y="{y + 1:g}" width="{_WIDE - 2}" height="{high - 2}" rx="3"/>' if part else ""
    told = f"<title>{text_of(title)}</title>" if title else ""
    inside = f'<text x="{x + _WIDE / 2:g}" y="{y + high / 2 + 4:g}" class="mid t-{kind}">{text_of(letters)}</text>'
    return f'<g>{told}<rect class="{kind}" x="{x:g}" y="{y:g}" width="{_WIDE}" height="{high}" rx="3"/>{edge}{inside}</g>'
