"""Which known bug or documented choice explains a red cell, and what is expected of a version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.patches import advisories
from truestep.reports.verdict import BY_DESIGN, WRONG, Verdict


def predicted(cell: Cell, version: str) -> list[Any]:
    """The advisories whose trigger this cell meets on this version."""
    facts = cell.facts()
    return [a for a in advisories(cell.framework) if a.predicts(facts, version)]


def explain(verdict: Verdict, cell: Cell, version: str) -> Verdict:
    """Attach the advisory whose trigger and signature fit; a documented choice becomes ``by-design``."""
    if verdict.verdict != WRONG:
        return verdict
    kinds = set(verdict.diagnosis.kinds) if verdict.diagnosis else {verdict.checks and _red(verdict)}
    for advisory in predicted(cell, version):
        if kinds & set(advisory.signature):
            if advisory.by_design:
                return replace(verdict, verdict=BY_DESIGN, advisory=advisory.id, link=advisory.links[0])
            return replace(verdict, advisory=advisory.id, link=advisory.links[0])
    return verdict


def _red(verdict: Verdict) -> str:
    """Without weights (an update, a reading) the check that failed is the signature."""
    worst = verdict.worst
    return worst.name.split()[0] if worst else ""
