"""Whether a set of results passes: the policy of ``truestep report``, and every reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from truestep.reports.baseline import Accepted, Baseline, Entry, Expired
from truestep.reports.compare_runs import NEW, Comparison
from truestep.reports.findings import counts, judged
from truestep.reports.results import Environment, Results
from truestep.reports.verdict import RED

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2
POLICIES = ("findings", "new", "never")


@dataclass(frozen=True)
class Outcome:
    """code: 0 clean, 1 findings, 2 nothing that could be judged; reasons: why it is not 0, one line each; notes: what else must be known.

    accepted : (environment, cell) -> what the baseline says of that finding; expired, stale: entries of the baseline that have to go
    """

    code: int = CLEAN
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    accepted: Mapping[tuple[str, str], Accepted | Expired] = field(default_factory=dict)
    expired: tuple[Entry, ...] = ()
    stale: tuple[Entry, ...] = ()

    def accepts(self, environment: str, cell: str) -> Accepted | None:
        found = self.accepted.get((environment, cell))
        return found if isinstance(found, Accepted) else None


def decide(results: Results, today: date, *, baseline: Baseline | None = None, comparison: Comparison | None = None, fail_on: str = "findings") -> Outcome:
    """findings: every finding that is not accepted fails; new: only what the comparison calls new; never: no finding does.

    An entry of the baseline that is expired or stale fails as a finding does. Without one, an environment in which nothing was judged is 2, and so
    is a run that did not come to its end (but for never). Nothing judged anywhere is 2 whatever the policy.
    """
    accepted = {}
    open_findings = 0
    for environment, row in results.red:
        if baseline is not None and (found := baseline.judge(row, today)) is not None:
            accepted[(environment.name, row["id"])] = found
            if isinstance(found, Accepted):
                continue
        open_findings += 1
    expired = tuple(baseline.expired(today)) if baseline is not None else ()
    stale = tuple(baseline.stale((row for _, row in results), today)) if baseline is not None else ()
    reasons = [
        *(f"{e.bug} was accepted until {e.expires}, which is over: cure it, or give its {len(e.cells)} cells another date" for e in expired),
        *(f"{e.bug} is accepted, but {_cells(e)} right now: remove that from the baseline" for e in stale),
    ]
    if fail_on == "new" and comparison is not None:
        new = [c for c in comparison.of(NEW) if not isinstance(accepted.get((c.environment, c.cell)), Accepted)]
        if new:
            reasons.insert(0, f"{len(new)} finding{'s' * (len(new) != 1)} that the earlier run did not have")
    elif open_findings:
        reasons.insert(0, f"{open_findings} cell{'s' * (open_findings != 1)} with a finding" + " that is not accepted" * (baseline is not None))
    empty = [_nothing(environment) for environment in results.environments if not _judged(environment)]
    cut = [_unfinished(environment) for environment in results.environments if _judged(environment) and not environment.complete]
    notes: list[str] = []
    if fail_on == "never":
        notes, reasons, cut = [*cut, *reasons], [], []
    if len(empty) == len(results.environments):
        code = UNUSABLE
        empty = empty or ["there is no result"]
    else:
        code = FINDINGS if reasons else UNUSABLE if empty or cut else CLEAN
    return Outcome(code, (*empty, *cut, *reasons), tuple(notes), accepted, expired, stale)


def _cells(entry: Entry) -> str:
    return f"{entry.cells[0]} is" if len(entry.cells) == 1 else f"{entry.cells[0]} and {len(entry.cells) - 1} more are"


def _judged(environment: Environment) -> bool:
    return judged(counts(environment.rows.values())) > 0


def _nothing(environment: Environment) -> str:
    told = counts(environment.rows.values())
    reasons = Counter(row.get("reason", "") for row in environment.rows.values()).most_common(1)
    because = f" ({reasons[0][0][:120]})" if reasons and reasons[0][0] else ""
    return f"{environment.name}: nothing was judged: {', '.join(f'{n} {verdict}' for verdict, n in told.items()) or 'no cell'}{because}"


def _unfinished(environment: Environment) -> str:
    of = f" of {environment.last.cells}" if environment.last.cells else ""
    state = "is still at work" if environment.last.alive else "did not come to its end"
    return f"{environment.name}: the run {state}: {len(environment.rows)}{of} cells have a verdict"


def red_left(results: Results, outcome: Outcome) -> int:
    """How many cells have a finding that nobody accepted."""
    return sum(row["verdict"] in RED and outcome.accepts(e.name, row["id"]) is None for e, row in results)
