"""What was done wrong: the effective weight of every micro-batch in the gradient consumed.

The gradient a framework used is almost always a weighted sum of micro-batch gradients, and with a
tiny model those are linearly independent. Least squares on the gradient consumed gives the weights
it really had; further columns catch what else may be in it (the previous step's gradient, the
optimizer's old momentum, weight decay).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from truestep.fixtures import oracle, reference
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import compare
from truestep.reports.verdict import Diagnosis

FITS = {"fp32": 1e-4, "bf16": 5e-3, "fp16": 5e-3}  # weights are told apart to this
LEFT_OVER = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}  # residual below which the weights explain the step


def diagnose(cell: Cell, trace: StepTrace, previous: StepTrace | None, limit: float | None) -> Diagnosis:
    """``limit``: the max_norm the user asked for, None for no clipping."""
    name = cell.facts().get("dtype", "fp32")
    dtype = torch.float64 if name == "fp32" else compare.DTYPES[name]
    micro = reference.micro_gradients(cell, trace.step, trace.weights_before, dtype)
    ranks, window = len(micro), len(micro[0])
    columns = [m for rank in micro for m in rank]
    extra: dict[str, Mapping[str, Tensor]] = {}
    if previous is not None:
        extra["the previous step's gradient"] = previous.grad_consumed
        for key in ("momentum_buffer", "exp_avg"):
            if key in trace.moments_before:
                extra[f"the old {key}"] = trace.moments_before[key]
    extra["the weights themselves (decay)"] = trace.master_before

    solved, residual = _solve(trace.grad_consumed, columns)
    others: dict[str, float] = {}
    if residual > LEFT_OVER[name]:  # only then look for what else is in it: fewer columns, firmer weights
        all_columns = columns + list(extra.values())
        wider, left = _solve(trace.grad_consumed, all_columns)
        if left <= LEFT_OVER[name]:
            solved, residual = wider[: len(columns)], left
            found = wider[len(columns) :].tolist()
            others = {label: w for label, w in zip(extra, found, strict=True) if abs(w) > FITS[name]}
    # 1 is right: the mean over ranks of the sum over micro-batches is the step
    ratio = solved * ranks
    if limit is not None:
        whole = oracle.norm(reference.exact_sum(micro))
        ratio = ratio / min(1.0, limit / (whole + 1e-6))
    weights = tuple(tuple(ratio[r * window : (r + 1) * window].tolist()) for r in range(ranks))
    if residual > LEFT_OVER[name]:
        return _by_parameter(trace, columns, ranks, window, residual, LEFT_OVER[name])
    kinds, words = _classify(weights, others, trace, FITS[name])
    return Diagnosis(kinds, words, weights, residual)


def _solve(target: Mapping[str, Tensor], columns: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, float]:
    """Least squares weights of the columns and the relative residual; columns are scaled to norm 1 first."""
    names = list(target)
    wanted = torch.cat([target[n].flatten() for n in names])
    matrix = torch.stack([torch.cat([c[n].flatten() for n in names]) for c in columns], dim=1)
    norms = matrix.norm(dim=0).clamp(min=1e-30)
    found = torch.linalg.lstsq(matrix / norms, wanted[:, None], driver="gelsd").solution[:, 0] / norms
    size = float(wanted.norm())
    residual = float((matrix @ found - wanted).norm())
    return found, residual / size if size else residual


def _by_parameter(
    trace: StepTrace, columns: Sequence[Mapping[str, Tensor]], ranks: int, window: int, residual: float, fits: float
) -> Diagnosis:
    """No one set of weights explains the step: perhaps one set per parameter does (a parameter that was
    left out, a shard that was not reduced)."""
    right, gone, lonely, other = [], [], [], []
    for name, target in trace.grad_consumed.items():
        used = [c for c in columns if float(c[name].norm()) > 0]
        if not used or target.numel() < 2 * len(used):
            continue
        found, left = _solve({name: target}, [{name: c[name]} for c in used])
        weights = [float(w) * ranks for w in found]
        if left > fits and float(target.norm()) > 0:
            other.append(name)
        elif all(abs(w - 1) < 0.02 for w in weights):
            right.append(name)
        elif all(abs(w) < 0.02 for w in weights):
            gone.append(name)
        elif len(used) == len(columns) and _counts_one_rank(weights, ranks, window):
            lonely.append(name)
        else:
            other.append(f"{name} ({', '.join(f'{w:.3g}' for w in weights)})")
    if lonely:
        words = f"shards were stepped on one rank's own gradient, not (or not wholly) reduced over ranks: {_some(lonely)}"
        return Diagnosis(("unreduced",), words, (), residual)
    if gone and not other:
        words = f"{_some(gone)}: every micro-batch has weight 0, in the other parameters all have their right weight"
        return Diagnosis(("dropped",), words, (), residual)
    words = f"no weights of the micro-batches explain the gradient (residual {residual:.2g})"
    if other:
        words += f"; the error is in {_some(other)}" + (f", while {_some(right)} is right" if right else "")
    return Diagnosis(("unexplained",), words, (), residual)


def _counts_one_rank(weights: Sequence[float], ranks: int, window: int) -> bool:
    """Whether some micro-batch has weight 0 on all ranks but one, where it counts for all of them."""
    for k in range(window):
        across = sorted(abs(weights[r * window + k]) for r in range(ranks))
        if ranks > 1 and across[-2] < 0.05 and abs(across[-1] - ranks) < 0.1 * ranks:
            return True
    return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _classify(
    weights: tuple[tuple[float, ...], ...], others: Mapping[str, float], trace: StepTrace, fits: float
) -> tuple[tuple[str, ...], str]:
    flat = [(r, k, w) for r, rank in enumerate(weights) for k, w in enumerate(rank)]
    ranks, window = len(weights), len(weights[0])
    kinds: list[str] = []
    said: list[str] = []
    loose = 10 * fits  # of a weight: fits is of the whole
    values = [w for *_, w in flat]
    alike = max(values) - min(values) <= loose * max(1.0, abs(max(values)))
    name = f"of {window}" if ranks == 1 else f"of {window} on {ranks} ranks"
    factor = sum(values) / len(values)
    if alike and abs(factor - 1) > fits:
        size = oracle.norm(trace.grad_consumed)
        if factor < 1 and abs(size - 1.0) < 0.01:
            kinds.append("clipped")
            said.append(f"the gradient was clipped to norm 1 though nobody asked (everything x {factor:.4g})")
        elif abs(factor) < loose:
            kinds.append("dropped")
            said.append("every micro-batch has weight 0")
        else:
            kinds.append("scaled")
            said.append(f"everything x {_factor(factor)}")
    elif not alike:
        zero = [(r, k) for r, k, w in flat if abs(w) <= loose]
        own = [w for *_, w in flat if abs(w) > loose]
        silent = {r for r, _ in zero if all(abs(w) <= loose for w in weights[r])}
        lonely = {k for k in range(window) if ranks > 1 and 0 < sum((r, k) in zero for r in range(ranks)) < ranks}
        if silent or lonely:
            kinds.append("unreduced")
            which = f"rank {_list(r + 0 for r in silent)}" if silent else f"micro-batch {_list(k + 1 for k in lonely)}"
            said.append(f"{which} was not reduced over ranks: only one rank's samples count")
        elif zero:
            kinds.append("dropped")
            gone = sorted({k + 1 for _, k in zero})
            said.append(
                f"micro-batch{'es' if len(gone) > 1 else ''} {_list(gone)} {name} {'have' if len(gone) > 1 else 'has'} weight 0"
            )
        rest = [w for w in own if abs(w - 1) > loose]
        if rest and not (silent or lonely):
            doubled = [(k + 1) for _, k, w in flat if abs(w - 2) <= loose]
            if doubled and len(doubled) == len(rest):
                kinds.append("double-counted")
                said.append(f"micro-batch {_list(sorted(set(doubled)))} {name} is counted twice")
            else:
                kinds.append("re-weighted")
                said.append(f"weights differ between micro-batches: {_range(own)}")
    for label, w in others.items():
        kinds.append("stale" if label.startswith(("the previous", "the old")) else "unexplained")
        said.append(f"{label} is in it with weight {w:.3g}")
    if not kinds:
        kinds, said = ["unexplained"], ["every micro-batch has its right weight; the error lies below what weights can tell"]
    return tuple(dict.fromkeys(kinds)), "; ".join(said)


def _factor(value: float) -> str:
    if value and abs(1 / value - round(1 / value)) < 1e-3 and abs(value) < 1:
        return f"1/{round(1 / value)}"
    return f"{value:.4g}"


def _list(values: object) -> str:
    items = [str(v) for v in values]  # type: ignore[attr-defined]
    if len(items) > 2 and [int(i) for i in items] == list(range(int(items[0]), int(items[-1]) + 1)):
        return f"{items[0]} to {items[-1]}"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _range(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g} times what they should be"
