"""From a cell and its traces to a verdict. Runs in the worker, where the tensors are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from truestep.fixtures import oracle
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import arithmetic, compare, diagnose
from truestep.reports.verdict import NOT_TRIGGERED, PASS, WRONG, Check, Diagnosis, Verdict

from truestep import patches


def judge(
    cell: Cell, traces: list[StepTrace], driver: Any, detail: bool = False, explain: bool = True, weigh: bool = False
) -> Verdict:
    """``pass``, ``wrong`` or ``not-triggered``; advisories and design choices are looked up later.

    ``detail``: a diagnosis down to samples and tokens; ``explain``: False for none, where only the figures are wanted;
    ``weigh``: the effective weights of the first step of a cell that is right, too.
    """
    limit = driver.asked_norm(cell)
    checks = list(compare.compare(cell, traces, driver, limit))
    if any(c.red for c in checks) and driver.documented_norm(cell) != limit:
        # Documented to differ from what was asked: a fault beside that choice must not hide behind it.
        second = list(compare.compare(cell, traces, driver, driver.documented_norm(cell)))
        if any(c.red for c in second):
            checks, limit = second, driver.documented_norm(cell)
    if len(traces) < cell.split.steps:  # samples that no step has seen
        checks.append(Check("steps", traces[-1].step, 1 - len(traces) / cell.split.steps, 0.0, 0.0))
    applied = tuple(f"{record.state} {record.id}: {record.reason}" for record in patches.status())
    base: dict[str, Any] = dict(cell=cell.to_json(), id=cell.id, checks=tuple(checks), patches=applied)
    red = next((c for c in checks if c.red), None)
    if red is None:
        reason = compare.blind(cell, checks) or _not_triggered(cell, traces, driver)
        weighed = (
            diagnose.weigh(_question(cell, traces, traces[0], driver, limit)) if weigh and traces[0].grad_consumed else None
        )
        return Verdict(**base, verdict=NOT_TRIGGERED if reason else PASS, reason=reason or "", diagnosis=weighed)
    trace = next(t for t in traces if t.step == red.step)
    diagnosis = _explain(cell, traces, checks, driver, limit, detail) if explain else None
    where = f" in {red.where}" if red.where else ""
    reason = f"{red.name} of step {red.step + 1} is off by {red.figure:.3g} (tolerance {red.bound:.1e}){where}"
    if red.name == "steps":
        reason = f"{len(traces)} of {cell.split.steps} optimizer steps were taken"
    if not trace.grad_consumed:
        reason += "; through this reading the step itself could not be observed"
    return Verdict(**base, verdict=WRONG, reason=reason, diagnosis=diagnosis)


def _explain(
    cell: Cell, traces: list[StepTrace], checks: list[Check], driver: Any, limit: float | None, detail: bool
) -> Diagnosis | None:
    """Every red gradient is diagnosed, and the first red check of every other name; what a later one adds is added."""
    found: list[tuple[int, Diagnosis]] = []
    seen: set[str] = set()
    for check in (c for c in checks if c.red):
        trace = next(t for t in traces if t.step == check.step)
        if check.name == "gradient":
            found.append((check.step, _diagnosis(cell, traces, trace, driver, limit, detail)))
            if found[-1][1].words == diagnose.NOT_FINITE:
                break  # all that comes after it is not finite either
        elif check.name not in seen:
            seen.add(check.name)
            given = any(c.red and c.name == "moments" and c.step == check.step for c in checks)
            found.append((check.step, arithmetic.describe(cell, trace, check, driver, wrong_moments=given)))
    found.sort(key=lambda f: f[1].kinds[0] in CHECKS)  # gradients first
    step, first = found[0]
    told = {first.words}
    for other_step, other in found[1:]:
        if other.words in told or IMPLIED.get(other.kinds[0], frozenset()) & set(first.kinds):
            continue
        told.add(other.words)
        at = f"in step {other_step + 1}: " if other_step != step else ""
        kinds = tuple(dict.fromkeys((*first.kinds, *other.kinds)))
        sure = max(first.sure, other.sure, key=SURE.index)
        first = replace(first, kinds=kinds, words=f"{first.words}; {at}{other.words}", sure=sure)
    return first


#: from the firmest to the weakest
SURE = ("", "certain", "likely", "cannot tell")
CHECKS = frozenset(("initial", "loss", "norm", "lr", "moments", "update", "weights", "ranks", "reload", "reading"))
#: what follows from a diagnosis is not told again
IMPLIED = {"ranks": frozenset({"unreduced"})}


def _diagnosis(
    cell: Cell, traces: list[StepTrace], trace: StepTrace, driver: Any, limit: float | None, detail: bool
) -> Diagnosis:
    return diagnose.diagnose(_question(cell, traces, trace, driver, limit), detail)


def _question(cell: Cell, traces: list[StepTrace], trace: StepTrace, driver: Any, limit: float | None) -> diagnose.Question:
    wanted = compare.expected(cell, trace)
    _, nearest = compare.gradient_check(cell, trace, wanted, driver, limit)
    return diagnose.Question(
        cell=cell,
        trace=trace,
        previous=next((t for t in traces if t.step == trace.step - 1), None),
        limit=limit,
        right=oracle.clip(nearest, limit),
        whole=oracle.norm(nearest),
        narrow=compare.narrow(trace, wanted),
        tolerance=partial(compare.tolerance, cell, trace, wanted, driver),
        kept=driver.SGD["momentum"] if "momentum_buffer" in trace.moments_before else _kept(driver.ADAM["betas"][0]),
    )


def _kept(decay: float) -> float:
    """Adam's m' = decay * m + (1 - decay) * g: what m weighs beside g."""
    return decay / (1 - decay)


#: between two gradients of that cosine a thousandth of the weight may be moved before a step in fp32 shows 1e-5
ALIKE, NOTHING = 1 - 1e-4, 1e-4


def _not_triggered(cell: Cell, traces: list[StepTrace], driver: Any) -> str | None:
    """What the samples cannot show proves nothing: micro-batches that weigh nothing or pull the same way, no clipping."""
    for trace in traces if cell.split.world_size * max(cell.split.windows) > 1 else ():
        least, alike = compare.expected(cell, trace).apart
        if least < NOTHING:
            return f"a micro-batch of step {trace.step + 1} has next to no gradient ({least:.1e} of the step's): nobody would miss it"
        if alike > ALIKE:
            return f"the gradients of two micro-batches of step {trace.step + 1} are proportional (cosine {alike:.6f})"
    clipping = cell.facts().get("clipping", "off")
    if clipping in driver.MUST_CLIP:
        limit = driver.MUST_CLIP[clipping]
        for trace in traces:
            norm = oracle.norm(compare.expected(cell, trace).sums[0])
            if norm <= limit:
                return f"the gradient of step {trace.step + 1} has norm {norm:.3g}, too small to be clipped at {limit:g}"
    return None
