"""From a cell and its traces to a verdict. Runs in the worker, where the tensors are."""

from __future__ import annotations

from typing import Any

from truestep.fixtures import oracle
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import compare, diagnose
from truestep.reports.verdict import NOT_TRIGGERED, PASS, WRONG, Verdict

from truestep import patches


def judge(cell: Cell, traces: list[StepTrace], driver: Any) -> Verdict:
    """``pass``, ``wrong`` or ``not-triggered``; advisories and design choices are looked up later."""
    limit = driver.asked_norm(cell)
    checks = list(compare.compare(cell, traces, driver, limit))
    if any(c.red for c in checks) and driver.documented_norm(cell) != limit:
        # Documented to differ from what was asked: a fault beside that choice must not hide behind it.
        second = list(compare.compare(cell, traces, driver, driver.documented_norm(cell)))
        if any(c.red for c in second):
            checks, limit = second, driver.documented_norm(cell)
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
        diagnosis = diagnose.diagnose(cell, trace, previous, limit)
    where = f" in {red.where}" if red.where else ""
    reason = f"{red.name} of step {red.step + 1} is off by {red.figure:.3g} (tolerance {red.bound:.1e}){where}"
    if not trace.grad_consumed:
        reason += "; through this reading the step itself could not be observed"
    return Verdict(**base, verdict=WRONG, reason=reason, diagnosis=diagnosis)


def _not_triggered(cell: Cell, traces: list[StepTrace], driver: Any) -> str | None:
    """A cell about clipping whose gradient was too small to be clipped proves nothing."""
    clipping = cell.facts().get("clipping", "off")
    if clipping in driver.MUST_CLIP:
        limit = driver.MUST_CLIP[clipping]
        for trace in traces:
            norm = oracle.norm(compare.expected(cell, trace).sums[0])
            if norm <= limit:
                return f"the gradient of step {trace.step + 1} has norm {norm:.3g}, too small to be clipped at {limit:g}"
    return None
