"""From a cell and its traces to a verdict. Runs in the worker, where the tensors are."""

from __future__ import annotations

from typing import Any

from truestep import patches
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import compare, diagnose
from truestep.reports.verdict import NOT_TRIGGERED, PASS, WRONG, Verdict


def judge(cell: Cell, traces: list[StepTrace], driver: Any) -> Verdict:
    """``pass``, ``wrong`` or ``not-triggered``; advisories and design choices are looked up later."""
    checks = list(compare.compare(cell, traces, driver))
    applied = tuple(f"{record.state} {record.id}: {record.reason}" for record in patches.status())
    base: dict[str, Any] = dict(cell=cell.to_json(), id=cell.id, checks=tuple(checks), patches=applied)
    red = next((c for c in checks if c.red), None)
    if red is None:
        reason = compare.blind(cell, checks) or _not_triggered(cell, traces, driver)
        return Verdict(**base, verdict=NOT_TRIGGERED if reason else PASS, reason=reason or "")
    diagnosis = None
    trace = next(t for t in traces if t.step == red.step)
    if trace.grad_consumed and any(c.red for c in checks if c.name == "gradient" and c.step == red.step):
        previous = next((t for t in traces if t.step == red.step - 1), None)
        limit = compare.clip_norm(cell, driver.MAX_NORM)
        diagnosis = diagnose.diagnose(cell, trace, previous, limit)
    where = f" in {red.where}" if red.where else ""
    reason = f"{red.name} of step {red.step + 1} is off by {red.figure:.3g} (tolerance {red.bound:.1e}){where}"
    return Verdict(**base, verdict=WRONG, reason=reason, diagnosis=diagnosis)


def _not_triggered(cell: Cell, traces: list[StepTrace], driver: Any) -> str | None:
    """A cell about clipping whose gradient was too small to be clipped proves nothing."""
    clipping = cell.facts().get("clipping", "off")
    if clipping in driver.MUST_CLIP:
        limit = driver.MUST_CLIP[clipping]
        for trace in traces:
            norm = compare.oracle.norm(compare.expected(cell, trace).sums[0])
            if norm <= limit:
                return f"the gradient of step {trace.step + 1} has norm {norm:.3g}, too small to be clipped at {limit:g}"
    return None
