"""A badge: what was right and what was wrong, as a picture of our own or as data for an endpoint badge (https://shields.io/badges/endpoint-badge)."""

from __future__ import annotations

import json
from html import escape
from typing import NamedTuple

from truestep.reports.findings import counts, judged
from truestep.reports.gate import Outcome, red_left
from truestep.reports.results import Results
from truestep.reports.verdict import ERROR, PASS, TIMEOUT, WRONG

LABEL = "truestep"
COLOURS = {"brightgreen": "#2a7d2e", "red": "#b3261e", "yellow": "#8a6100", "lightgrey": "#5c6166"}  # white text on each is readable: 4.5 : 1 and more

_NARROW, _WIDE = "iljtfr.,:;'!|()[] I1", "mwMW@%"


class Badge(NamedTuple):
    message: str
    colour: str


def badge(results: Results, outcome: Outcome) -> Badge:
    """Green only where something was judged, nothing is red, and every environment came to its end."""
    told = counts(row for _, row in results)
    if not judged(told):
        return Badge("nothing judged", "lightgrey")
    red = told[WRONG] + told[ERROR] + told[TIMEOUT]
    left = red_left(results, outcome)
    if left:
        failed = sum(row["verdict"] in (ERROR, TIMEOUT) and outcome.accepts(e.name, row["id"]) is None for e, row in results)
        parts = [f"{left - failed} wrong"] * (left > failed) + [f"{failed} failed"] * (failed > 0)
        return Badge(", ".join(parts), "red")
    if outcome.expired or outcome.stale:
        return Badge("baseline out of date", "red")
    if red:
        return Badge(f"{told[PASS]} right, {red} accepted", "yellow")
    if any(not judged(counts(e.rows.values())) or not e.complete for e in results.environments):
        return Badge(f"{told[PASS]} right, unfinished", "yellow")
    if not told[PASS]:
        return Badge("by design only", "yellow")
    return Badge(f"{told[PASS]} right", "brightgreen")


def endpoint(one: Badge) -> str:
    data = {"schemaVersion": 1, "label": LABEL, "message": one.message, "color": one.colour, "isError": one.colour != "brightgreen"}
    return json.dumps(data, indent=1) + "\n"


def svg(one: Badge) -> str:
    """Self-contained: no font, style sheet or address outside the file but SVG's own namespace."""
    left, right = _width(LABEL) + 12, _width(one.message) + 12
    text = escape(f"{LABEL}: {one.message}", quote=True)
    parts = [(LABEL, left / 2, _width(LABEL)), (one.message, left + right / 2, _width(one.message))]
    words = "".join(
        f'<text x="{middle:.1f}" y="14" textLength="{length}" lengthAdjust="spacingAndGlyphs">{escape(said)}</text>' for said, middle, length in parts
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{text}"><title>{text}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath><g clip-path="url(#r)">'
        f'<rect width="{left}" height="20" fill="#33383d"/><rect x="{left}" width="{right}" height="20" fill="{COLOURS[one.colour]}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">{words}</g></svg>\n'
    )


def _width(text: str) -> int:
    """Pixels of a text in Verdana at 11 px, nearly; ``textLength`` makes the browser keep to it."""
    return round(sum(4.2 if c in _NARROW else 10.0 if c in _WIDE else 8.0 if c.isupper() else 6.9 if ord(c) < 0x2E80 else 11.0 for c in text))
