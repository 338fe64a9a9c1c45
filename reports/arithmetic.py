"""What was done wrong after the gradient: in the optimizer's arithmetic, the copies of the weights, the reports.

The gradient consumed is right (or taken as given); the fault is in what was made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from truestep.fixtures import oracle
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import compare, patterns
from truestep.reports.verdict import Check, Diagnosis

CLOSE = 1e-4  # of an update or a moment: float32 shows the update no better than that beside the weights
COUNTS = 64  # step counts that are tried for a wrong bias correction

Tensors = Mapping[str, Tensor]


def describe(cell: Cell, trace: StepTrace, check: Check, settings: Any, wrong_moments: bool = False) -> Diagnosis:
    """The kind is the check that is red; the words say how far what was seen is from what was asked for.

    ``wrong_moments``: the moments of this step are wrong too, so that nothing can be read off its update.
    """
    if check.name == "steps":
        gone = round(cell.split.steps * check.figure)
        return Diagnosis(("dropped",), f"the samples of {gone} of {cell.split.steps} optimizer steps were never trained on", sure="certain")
    say = {"update": _update, "moments": _moments, "weights": _weights}.get(check.name)
    seen = (
        *trace.grad_consumed.values(),
        *trace.master_after.values(),
        *(t for m in trace.moments_after.values() for t in m.values()),
    )
    if not all(bool(torch.isfinite(t).all()) for t in seen):
        words = "numbers that are not finite"
    elif wrong_moments and check.name == "update":
        words = "the update is not what the settings asked for make of these moments"
    else:
        words = say(cell, trace, settings) if say and trace.grad_consumed else _report(cell, trace, check, settings)
    where = (check.where,) if check.where else ()
    return Diagnosis((check.name.split()[0],), words, where=where, sure="certain" if words else "cannot tell")


def _update(cell: Cell, trace: StepTrace, settings: Any) -> str:
    moved = {n: trace.master_after[n] - trace.master_before[n] for n in trace.master_after}
    if oracle.norm(moved) == 0.0:
        return "the weights did not move"
    adam = "exp_avg" in trace.moments_before
    asked = settings.ADAM if adam else settings.SGD
    lr = asked["lr"] * settings.rate(cell, trace.step)
    due = trace.step + 1
    decays = {n: settings.decay(cell, p.dim()) if adam else 0.0 for n, p in trace.master_before.items()}
    if adam:
        for count in (due, *(c for c in range(1, COUNTS) if c != due), 10**6):
            rate, decay, left = _fit(trace, moved, _direction(trace, asked, count), lr)
            wrong = {n: d for n, d in decay.items() if abs(d - decays[n]) > max(0.02 * asked["weight_decay"], 1e-4)}
            if left < CLOSE and abs(rate - 1) < CLOSE and (count != due or wrong):
                said = []
                if count != due:
                    named = "none at all" if count == 10**6 else f"that of step {count}"
                    said.append(f"the bias correction is {named}, where that of step {due} was due")
                if wrong:
                    said.append(_decay(wrong, decays))
                return "; ".join(said)
        rate, decay, left = _fit(trace, moved, _direction(trace, asked, due), lr)
    else:
        rate, decay, left = _fit(trace, moved, trace.moments_after["momentum_buffer"], lr)
        ahead = {n: g + asked["momentum"] * trace.moments_after["momentum_buffer"][n] for n, g in trace.grad_consumed.items()}
        nesterov, _, rest = _fit(trace, moved, ahead, lr)
        if abs(nesterov - 1) < CLOSE and rest < CLOSE and (abs(rate - 1) > CLOSE or left > CLOSE):
            plain = f" (or an update x {patterns.number(rate)}: in the first step both look alike)" if left < CLOSE else ""
            return f"the update is that of Nesterov momentum, which nobody asked for{plain}"
    wrong = {n: d for n, d in decay.items() if abs(d - decays[n]) > max(0.02 * asked.get("weight_decay", 0.0), 1e-4)}
    said = (
        []
        if abs(rate - 1) < CLOSE
        else [f"the update is x {patterns.number(rate)} (a learning rate of {rate * lr:.4g} where {lr:.4g} was asked for)"]
    )
    if left < 10 * CLOSE and wrong:
        said.append(_decay(wrong, decays))
    return (
        "; ".join(said)
        if left < 10 * CLOSE and said
        else "the update is not what the optimizer's formula makes of the gradient"
    )


def _direction(trace: StepTrace, asked: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """What AdamW moves along, from the moments that it holds, for a step count."""
    b1, b2 = asked["betas"]
    return {
        n: (m / (1 - b1**count)) / ((trace.moments_after["exp_avg_sq"][n] / (1 - b2**count)).sqrt() + asked["eps"])
        for n, m in trace.moments_after["exp_avg"].items()
    }


def _fit(trace: StepTrace, moved: Tensors, direction: Tensors, lr: float) -> tuple[float, dict[str, float], float]:
    """(factor on the direction, decay of each parameter, what is left over), by least squares."""
    names = list(moved)
    factors, decay, left, size = [], {}, 0.0, 0.0
    for n in names:
        columns = torch.stack([-lr * direction[n].flatten(), -lr * trace.master_before[n].flatten()], 1)
        if columns.shape[0] < 3 or not bool(direction[n].any()):
            continue
        found = torch.linalg.lstsq(columns, moved[n].flatten()[:, None], driver="gelsd").solution[:, 0]
        factors.append((float(found[0]), float(direction[n].norm())))
        decay[n] = float(found[1])
        left += float((columns @ found - moved[n].flatten()).square().sum())
        size += float(moved[n].square().sum())
    total = sum(w for _, w in factors) or 1.0
    rate = sum(f * w for f, w in factors) / total
    spread = max((abs(f - rate) for f, _ in factors), default=0.0)
    return rate, decay, max((left / size) ** 0.5 if size else 0.0, spread)


def _decay(wrong: Mapping[str, float], asked: Mapping[str, float]) -> str:
    some = sorted(wrong, key=lambda n: -abs(wrong[n] - asked[n]))
    first = some[0]
    more = f" and {len(some) - 1} more" if len(some) > 1 else ""
    return f"weight decay of {first}{more} is {wrong[first]:.3g} where {asked[first]:.3g} was asked for"


def _moments(cell: Cell, trace: StepTrace, settings: Any) -> str:
    asked = settings.SGD if "momentum_buffer" in trace.moments_before else settings.ADAM
    kept = {"momentum_buffer": (asked.get("momentum", 0.0), 1.0)}
    if "betas" in asked:
        b1, b2 = asked["betas"]
        kept = {"exp_avg": (b1, 1 - b1), "exp_avg_sq": (b2, 1 - b2)}
    said = []
    for key, (old, new) in kept.items():
        gradient = {n: g.square() if key == "exp_avg_sq" else g for n, g in trace.grad_consumed.items()}
        columns = torch.stack([_flat(trace.moments_before[key]), _flat(gradient)], 1)
        target = _flat(trace.moments_after[key])
        if not bool(columns[:, 0].any()):  # the first step keeps nothing
            columns, old_due = columns[:, 1:], []
        else:
            old_due = [old]
        found = torch.linalg.lstsq(columns, target[:, None], driver="gelsd").solution[:, 0]
        if float((columns @ found - target).norm()) > CLOSE * float(target.norm()):
            said.append(f"{key} is not a sum of its old value and the gradient")
            continue
        for value, due, what in zip(
            found.tolist(), [*old_due, new], ["its old value", "the gradient"][-len(found) :], strict=True
        ):
            if abs(value - due) > 1e-5:
                said.append(f"{key} holds {what} with weight {value:.4g} where {due:.4g} is due")
    return "; ".join(said)


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([t.flatten() for t in tensors.values()])


def _weights(cell: Cell, trace: StepTrace, settings: Any) -> str:
    if compare.distance(trace.weights_after, trace.weights_before)[0] == 0.0:
        return "forward goes on with the weights of before the step: the master copy was not copied back (stale)"
    return "what forward computes with is not the rounded master copy"


def _report(cell: Cell, trace: StepTrace, check: Check, settings: Any) -> str:
    wanted = compare.expected(cell, trace)
    if check.name == "loss":
        return _reported("loss", cell, trace, trace.loss, wanted.loss)
    if check.name == "norm":
        return _reported("gradient norm", cell, trace, trace.grad_norm or 0.0, oracle.norm(wanted.sums[0]))
    if check.name == "lr":
        asked = settings.ADAM if "exp_avg" in trace.moments_before else settings.SGD
        return f"the learning rate is {trace.lr:.4g} where {asked['lr'] * settings.rate(cell, trace.step):.4g} was asked for"
    if check.name == "ranks":
        return f"the weights of the ranks differ by {trace.ranks_differ:.2g} after the step"
    if check.name == "reload":
        what = check.where if check.where in trace.moments_before else f"weights ({check.where or 'all'})"
        return f"{what}: what the checkpoint brought back is not what was saved"
    if check.name == "initial":
        return "setting up the trainer changed the weights"
    name = check.name.partition(" ")[2]
    if name in trace.readings and trace.readings[name][0] == "loss after":
        return _reported(f"loss ({name})", cell, trace, float(trace.readings[name][1]["loss"]), compare.truth(cell, trace.step, trace.weights_after).loss)
    if name in trace.readings and trace.readings[name][0] == "lr":
        return f"{name} reports {float(trace.readings[name][1]['lr']):.6g}, and the step was taken with {trace.lr:.6g}"
    if check.name.startswith("reading"):
        return f"{check.name.partition(' ')[2]} returns something else than what it names"
    return ""


def _reported(what: str, cell: Cell, trace: StepTrace, seen: float, right: float) -> str:
    factor = seen / right if right else float("inf")
    names = patterns.names_of(cell, trace.step, factor, 1e-5)
    called = f" ({' or '.join(names)})" if names else ""
    return f"the {what} reported is {seen:.6g} where {right:.6g} is right: x {patterns.number(factor)}{called}; the step itself is another question"
