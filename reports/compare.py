"""A trace against the oracle: one figure and one derived tolerance per question, in a fixed order.

Tolerance. In float32 the reference is the float64 oracle. The same cell is run in plain PyTorch
(same micro-batches, several orders of accumulation); its largest distance from the oracle is the
noise that a right step carries, and the bound is ``MARGIN`` times that. In bf16 and fp16 the model's
own rounding (0.3 to 2 %) would hide an error of the step, so the reference is a plain PyTorch
loop in that dtype, from the same weights: the sums that a loop may make of the micro-batch gradients
(exact; accumulated in the dtype or in float32 on each rank and then averaged in the dtype; averaged
and then accumulated in either) are all right, and the step must meet one of them within one further
rounding of each element, 2**-9 for bf16. Reading the gradient out of optimizer state adds the rounding
of that state, which the driver states.
A bound above a third of the smallest error that must be caught makes the cell ``not-triggered``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from truestep.fixtures import batches, models, objectives, oracle, reference
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports.verdict import Check

MARGIN = 2.5  # between the noise measured over a few orders and the bound
UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-9, "fp16": 2.0**-12}  # half a unit in the last place of 1
SENSITIVITY = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 1e-2}  # smallest relative error that must be caught
FLOOR = 1 / 64  # a parameter's error is relative to its own norm, at least this share of the whole
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Expected:
    """What a step must be. ``sums``: every gradient a right step may have consumed, before clipping."""

    loss: float
    sums: tuple[Tensors, ...]
    noise: float  # of the gradient, worst over the whole and every parameter
    bound: float
    loss_bound: float
    spread: float  # how far the norms of ``sums`` lie apart


def distance(seen: Tensors, wanted: Tensors) -> tuple[float, str]:
    """(relative error, where): the worst of the whole and of every parameter; NaN counts as infinite."""
    names = list(wanted)
    errors = torch.stack([(seen[n] - wanted[n]).square().sum() for n in names])
    norms = torch.stack([wanted[n].square().sum() for n in names])
    whole = float(norms.sum().sqrt())
    if whole == 0.0:
        return (float(errors.sum().sqrt()), "")
    relative = errors.sqrt() / norms.sqrt().clamp(min=FLOOR * whole)
    total = float(errors.sum().sqrt()) / whole
    worst = int(relative.argmax())
    if not bool(torch.isfinite(relative).all()):
        bad = int((~torch.isfinite(relative)).nonzero()[0])
        return float("inf"), names[bad]
    return (float(relative[worst]), names[worst]) if float(relative[worst]) > total else (total, "")


def expected(cell: Cell, trace: StepTrace) -> Expected:
    """The reference for this step, from the weights that the framework itself had before it."""
    digest = tuple(float(t.sum()) for t in trace.weights_before.values())
    return _expected(cell_without_framework(cell), trace.step, _Weights(trace.weights_before, digest))


def cell_without_framework(cell: Cell) -> Cell:
    """What the mathematics depends on: knobs that must not change the step are left out."""
    return Cell(
        cell.framework, cell.model, cell.split, (("dtype", cell.knob("dtype")),), cell.objective, cell.batch, "cpu", cell.seed
    )


class _Weights:
    """Weights as a cache key: equal where the sums of all tensors are (bit for bit)."""

    def __init__(self, tensors: Tensors, digest: tuple[float, ...]) -> None:
        self.tensors, self.digest = tensors, digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Weights)
            and self.digest == other.digest
            and all(torch.equal(t, other.tensors[n]) for n, t in self.tensors.items())
        )


@lru_cache(maxsize=64)
def _exact_model(model: str, seed: int) -> models.Task:
    return models.exact(model, seed)


def truth(cell: Cell, step: int, weights: Tensors) -> oracle.Gradient:
    """The float64 oracle at these weights: one backward over the whole batch."""
    batch = batches.make(cell.batch, cell.model, cell.seed, step)
    share = objectives.weights_of(cell.objective)(batch.mask)
    return oracle.gradient(_exact_model(cell.model, cell.seed), weights, lambda m: models.call(m, batch, share, torch.float64))


@lru_cache(maxsize=512)
def _noise(cell: Cell, step: int) -> float:
    """How far plain PyTorch in the cell's dtype lies from the oracle, over several orders, at the initial weights."""
    return _noise_at(cell, step, models.initial(cell.model, cell.seed, DTYPES[dict(cell.knobs)["dtype"]]))


def _noise_at(cell: Cell, step: int, weights: Tensors) -> float:
    dtype = DTYPES[dict(cell.knobs)["dtype"]]
    micro = reference.micro_gradients(cell, step, weights, dtype)
    wanted = truth(cell, step, weights).grads
    window = cell.split.windows[step]
    return max(distance(reference.rounded_sum(micro, dtype, o), wanted)[0] for o in reference.orders(window))


@lru_cache(maxsize=256)
def _expected(cell: Cell, step: int, weights: _Weights) -> Expected:
    name = dict(cell.knobs)["dtype"]
    dtype = DTYPES[name]
    right = truth(cell, step, weights.tensors)
    if name == "fp32":
        noise = _noise(cell, step)
        bound = MARGIN * max(noise, UNIT[name])
        return Expected(right.loss, (right.grads,), noise, bound, bound, 0.0)
    micro = reference.micro_gradients(cell, step, weights.tensors, dtype)
    window = range(cell.split.windows[step])
    sums = [
        reference.exact_sum(micro),
        reference.rounded_sum(micro, dtype, window),
        reference.rounded_sum(reference.reduced(micro, dtype), dtype, window),
        reference.exact_sum(reference.reduced(micro, dtype)),
        reference.exact_sum(reference.reduced(reference.by_rank(micro), dtype)),
    ]
    model = distance(sums[0], right.grads)[0]
    # The loss is evaluated by the model in its dtype: its own rounding is all that may be seen.
    bound = 1.25 * UNIT[name]
    # A norm may be taken of any of these sums, before or after it was rounded: they differ among themselves.
    spread = max(abs(oracle.norm(s) / oracle.norm(sums[0]) - 1) for s in sums)
    return Expected(right.loss, tuple(sums), model, bound, max(model, 4 * UNIT[name]), spread)


def compare(cell: Cell, traces: list[StepTrace], settings: Any, limit: float | None) -> Iterator[Check]:
    """Every check of every step, in the order of DESIGN section 4.

    settings : the driver's ``SGD`` and ``ADAM``, what the optimizer was built with
    limit    : the max_norm of gradient clipping, None for no clipping
    """
    for before, trace in zip([None, *traces[:-1]], traces, strict=True):
        step, wanted = trace.step, expected(cell, trace)
        if before is None:
            yield _initial(cell, trace)
        nearest = wanted.sums[0]
        if trace.grad_consumed:
            figures = [(*distance(trace.grad_consumed, oracle.clip(s, limit)), s) for s in wanted.sums]
            figure, where, nearest = min(figures, key=lambda f: f[0])
            bound = _bound(cell, trace, wanted, settings, figure, _reading_error(trace))
            yield Check("gradient", step, figure, bound, wanted.noise, where)
        scale = max(abs(wanted.loss), 1e-3)
        yield Check("loss", step, abs(trace.loss - wanted.loss) / scale, wanted.loss_bound, wanted.noise)
        if trace.grad_norm is not None:
            norm = oracle.norm(nearest)
            figure = abs(trace.grad_norm - norm) / norm
            bound = _bound(cell, trace, wanted, settings, figure, wanted.spread)
            yield Check("norm", step, figure, bound, wanted.noise)
        if trace.grad_consumed:
            yield from _arithmetic(trace, settings)
        yield _cast(cell, trace)
        if cell.split.world_size > 1:
            yield Check("ranks", step, trace.ranks_differ, 0.0, 0.0)
        if before is not None and cell.facts().get("checkpoint") == "reload":
            moved, where = max(
                distance(trace.master_before, before.master_after),
                distance(trace.weights_before, before.weights_after),  # what forward uses, not only the optimizer's copy
            )
            yield Check("reload", step, moved, 0.0, 0.0, where)
        for api, (what, read) in trace.readings.items():
            right = (trace.weights_before,) if what == "weights before" else wanted.sums
            figure, where = min((distance(read, s) for s in right), key=lambda f: f[0])
            bound = _bound(cell, trace, wanted, settings, figure, wanted.spread)
            yield Check(f"reading {api}", step, figure, bound, wanted.noise, where)


def _bound(cell: Cell, trace: StepTrace, wanted: Expected, settings: Any, figure: float, more: float) -> float:
    """The tolerance of this figure; before anything is accused, rounding is looked at once more.

    In float32 the noise was measured at the initial weights: for a later step it is measured again at that
    step's own. In half precision a step may be rounded twice on its way to the optimizer, or its micro-batch
    gradients on another path than a plain loop's: a figure that this can explain is not red, but the bound
    it is then held against is too wide for a pass (see ``blind``).
    """
    bound = wanted.bound + more
    if figure <= bound:
        return bound
    if cell.knob("dtype") == "fp32":
        if trace.step > 0:
            noise = _noise_at(cell_without_framework(cell), trace.step, trace.weights_before)
            bound = max(bound, MARGIN * noise + more)
        return bound
    bound += wanted.bound
    return bound + MARGIN * wanted.noise if settings.rerounds(cell) else bound


def _reading_error(trace: StepTrace) -> float:
    """What observing the gradient through optimizer state may add, worst over the parameters, relative."""
    norms = {n: float(g.norm()) for n, g in trace.grad_consumed.items()}
    floor = FLOOR * sum(v * v for v in norms.values()) ** 0.5 or 1.0
    return max(trace.consumed_error[n] / max(v, floor) for n, v in norms.items())


def _initial(cell: Cell, trace: StepTrace) -> Check:
    """Initialising an engine leaves the weights alone (but for rounding them to the model's dtype)."""
    dtype = DTYPES[cell.facts().get("dtype", "fp32")]
    names = trace.master_before
    rounded, given = (models.initial(cell.model, cell.seed, d) for d in (dtype, torch.float32))
    # In half precision a framework may keep the float32 weights that it was given as its master copy.
    master = min(distance(trace.master_before, {n: w[n] for n in names}) for w in (rounded, given))
    weights = distance(trace.weights_before, {n: rounded[n] for n in names})
    moved, where = max(master, weights)
    return Check("initial", 0, moved, 0.0, 0.0, where)


def _arithmetic(trace: StepTrace, settings: Any) -> Iterator[Check]:
    """Given what was consumed: are moments and weights what the optimizer's formula makes of it?

    The learning rate is the one that was asked for, never the one that the framework reports. The
    weights are float32 numbers and an update is seen no better than a rounding of the result, so its
    error is relative to the weights: eight roundings (the formula has no more) are the bound. The second
    moment is a square of what was read out of the first, so it carries that reading's error twice.
    """
    asked = settings.SGD if "momentum_buffer" in trace.moments_before else settings.ADAM
    yield Check("lr", trace.step, abs(trace.lr / asked["lr"] - 1), 0.0, 0.0)
    unit = UNIT["fp32"]
    before, after = trace.moments_before, trace.moments_after
    if "momentum_buffer" in before:
        wanted, _ = oracle.momentum_sgd(
            trace.master_before, trace.grad_consumed, before["momentum_buffer"],
            lr=asked["lr"], momentum=asked["momentum"],
        )  # fmt: skip
    else:
        wanted, _, second = oracle.adamw(
            trace.master_before, trace.grad_consumed, before["exp_avg"], before["exp_avg_sq"], trace.step + 1,
            lr=asked["lr"], betas=asked["betas"], eps=asked["eps"], weight_decay=asked["weight_decay"],
        )  # fmt: skip
        figure, where = distance(after["exp_avg_sq"], second)
        yield Check("moments", trace.step, figure, 8 * unit + 2 * _reading_error(trace), unit, where)
    figure, where = distance(trace.master_after, wanted)
    yield Check("update", trace.step, figure, 8 * unit, unit, where)


def _cast(cell: Cell, trace: StepTrace) -> Check:
    """The weights that forward will use are the master copy rounded to the model's dtype, exactly."""
    dtype = DTYPES[cell.facts().get("dtype", "fp32")]
    rounded = {n: m.to(torch.float32).to(dtype).double() for n, m in trace.master_after.items()}
    figure, where = distance(trace.weights_after, rounded)
    return Check("weights", trace.step, figure, 0.0, 0.0, where)


def blind(cell: Cell, checks: list[Check]) -> str | None:
    """Why a clean comparison proves nothing here, or None: the bound is too wide to see a real error."""
    dtype = cell.facts().get("dtype", "fp32")
    limit = SENSITIVITY[dtype] / 3
    widest = max((c.bound for c in checks if c.name in ("gradient", "moments", "update")), default=0.0)
    if widest > limit:
        return f"cannot tell: the tolerance {widest:.1e} is wider than a third of the error to be caught ({limit:.1e})"
    return None
