"""Which known bug or documented choice explains a red cell, and what is expected of a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.patches import advisories
from truestep.reports.verdict import BY_DESIGN, WRONG, Verdict


def predicted(cell: Cell, versions: Mapping[str, str], found: Mapping[str, Any] | None = None) -> list[Any]:
    """The advisories whose trigger this cell meets on these versions of the packages that it stands on.

    found : further facts, of the installed model (``Verdict.facts``)
    """
    facts = {**cell.facts(), **(found or {})}
    return [a for a in advisories() if a.framework in versions and a.predicts(facts, versions[a.framework])]


def explain(verdict: Verdict, cell: Cell, versions: Mapping[str, str]) -> Verdict:
    """Attach the advisory whose trigger and signature fit; a documented choice becomes ``by-design``."""
    if verdict.verdict != WRONG:
        return verdict
    told = verdict.diagnosis.kinds if verdict.diagnosis else (_red(verdict),)
    kinds = set(told)
    # what a patch that is applied cures cannot be the explanation
    applied = {line.split()[1].rstrip(":") for line in verdict.patches if line.startswith("applied")}
    foreseen = [a for a in predicted(cell, versions, verdict.facts) if a.patch not in applied]
    fitting = [a for a in foreseen if kinds & set(a.signature)]
    if not fitting:
        return verdict
    # a bug before a choice, then who explains what is told first, then who explains most
    first = max(fitting, key=lambda a: (not a.by_design, told[0] in a.signature, len(kinds & set(a.signature))))
    besides = kinds - {kind for a in foreseen for kind in a.signature}
    chosen = all(a.by_design for a in fitting) and not besides
    return replace(
        verdict, verdict=BY_DESIGN if chosen else WRONG, advisory=first.id, besides=tuple(sorted(besides)), link=first.links[0]
    )


def _red(verdict: Verdict) -> str:
    """Without weights (an update, a reading) the check that failed is the signature."""
    worst = verdict.worst
    return worst.name.split()[0] if worst else ""
