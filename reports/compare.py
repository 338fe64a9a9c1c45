"""A trace against the oracle: one figure and one derived tolerance per question, in a fixed order.

Tolerance (docs/tolerance.md derives it). In float32 the reference is the float64 oracle. The same cell is run
in plain PyTorch (same micro-batches, several orders of accumulation); the distance of each parameter's
gradient from the oracle is the noise that a right step carries there, and its bound is ``MARGIN`` times
that, or times what is typical of the model where this parameter happened to be luckier. In bf16 and fp16 the model's
own rounding (0.3 to 2 %) would hide an error of the step, so the reference is a plain PyTorch
loop in that dtype, from the same weights: the sums that a loop may make of the micro-batch gradients
(exact; accumulated in the dtype or in float32 on each rank and then averaged in the dtype; averaged
and then accumulated in either) are all right, and the step must meet one of them within one further
rounding of each element. Reading the gradient out of optimizer state adds the rounding of that state, which
the driver states. A bound above a third of the smallest error that must be caught makes the cell
``not-triggered``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from truestep.fixtures import models, oracle, problem, reference
from truestep.fixtures.cell import Cell, Split, deal
from truestep.fixtures.trace import StepTrace
from truestep.reports.verdict import SENSITIVITY, Check

MARGIN = 2.5  # between the noise measured over a few orders and the bound: `truestep selftest` measures what it must be
UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-9, "fp16": 2.0**-12}  # fp32: unit roundoff; half: its root mean square, rounded up
FLOOR = 2.0**-10  # a parameter's error is relative to its own norm, at least this share of the whole
BEYOND = 1e3  # times its bound: a step this far off is not rounded otherwise in another split or at other weights
USUAL = (1.0, 0.5, 0.1, 0.25, 2.0, 5.0, 10.0)  # norms that frameworks clip to by default
NOTHING = 1e-9  # a parameter whose gradient is a smaller share of the whole has none but for rounding
TINY = 1e-12  # the same for optimizer state, whose parameters may be very unlike in size
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHOLE = ""  # the name under which the figures of all parameters together stand

Tensors = Mapping[str, Tensor]
Noise = dict[str, float]  # parameter (or WHOLE) -> relative 2-norm


@dataclass(frozen=True)
class Expected:
    """What a step must be. ``sums``: every gradient a right step may have consumed, before clipping.

    noise, bound : of the gradient, per parameter and of the whole, relative
    model        : half precision: how far the model's own rounding takes it from the oracle
    spread       : how far the norms of ``sums`` lie apart
    """

    loss: float
    sums: tuple[Tensors, ...]
    noise: Noise
    bound: Noise
    loss_bound: float
    model: float
    spread: float
    apart: tuple[float, float]


def errors(seen: Tensors, wanted: Tensors, floor: float = FLOOR) -> tuple[Noise, Noise]:
    """(relative error, norm of the reference as a share of the whole), by parameter and of the WHOLE; NaN is infinite."""
    names = list(wanted)
    squares = torch.stack([(seen[n] - wanted[n]).square().sum() for n in names])
    norms = torch.stack([wanted[n].square().sum() for n in names]).sqrt()
    whole = float(norms.square().sum().sqrt())
    total = float(squares.sum().sqrt())
    if whole == 0.0:
        return {WHOLE: total}, {WHOLE: 1.0}
    relative = torch.nan_to_num(squares.sqrt() / norms.clamp(min=floor * whole), nan=float("inf"), posinf=float("inf"))
    found = dict(zip(names, relative.tolist(), strict=True))
    shares = dict(zip(names, (norms / whole).tolist(), strict=True))
    return {WHOLE: total / whole if total == total else float("inf"), **found}, {WHOLE: 1.0, **shares}


def distance(seen: Tensors, wanted: Tensors) -> tuple[float, str]:
    """(relative error, where): the worst of the whole and of every parameter; NaN counts as infinite."""
    found, _ = errors(seen, wanted)
    where = max(found, key=lambda n: found[n])
    return found[where], where


def held(
    name: str, step: int, seen: Tensors, wanted: Tensors, bound: Noise, noise: Noise, more: Noise, floor: float = FLOOR
) -> Check:
    """The check of the parameter (or the whole) whose error is nearest to, or furthest beyond, its own bound."""
    found, shares = errors(seen, wanted, floor)
    limits = {n: bound.get(n, bound[WHOLE]) + more.get(n, 0.0) for n in found}
    where = max(found, key=lambda n: found[n] / max(limits[n], 1e-300))
    # below the floor a relative error shows smaller than it is: there the bound is that much wider
    widest = max(limits[n] * max(1.0, floor / shares[n]) for n in found if shares[n] > NOTHING)
    return Check(name, step, found[where], limits[where], noise.get(where, noise[WHOLE]), where, widest)


def expected(cell: Cell, trace: StepTrace) -> Expected:
    """The reference for this step, from the weights that the framework itself had before it."""
    return _expected(cell_without_framework(cell), trace.step, _weights(trace))


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


def exact_model(cell: Cell) -> models.Task:
    return _exact_model(cell.model, cell.seed)


@lru_cache(maxsize=64)
def _exact_model(model: str, seed: int) -> models.Task:
    return models.exact(model, seed)


def truth(cell: Cell, step: int, weights: Tensors) -> oracle.Gradient:
    """The float64 oracle at these weights: one backward over the whole batch. Not to be modified."""
    given = _Weights(weights, tuple(float(t.sum()) for t in weights.values()))
    if problem.by_micro_batch(cell.objective) or cell.split.spanning:  # a sum over micro-batches, or samples that the split names
        return _truth(cell_without_framework(cell), step, given)
    split = cell.split  # the split does not matter, only which samples the step has
    whole = Split(1, (1,), size=split.samples(step)) if split.size else Split(1, (1,))
    return _truth(Cell("", cell.model, whole, (), cell.objective, cell.batch, cell.device, cell.seed), split.data(step), given)


@lru_cache(maxsize=64)
def _truth(cell: Cell, step: int, weights: _Weights) -> oracle.Gradient:
    if problem.by_micro_batch(cell.objective):
        micro = reference.micro_gradients(cell, step, weights.tensors, torch.float64)
        return oracle.Gradient(reference.loss(cell, step, weights.tensors, torch.float64), reference.exact_sum(micro))
    batch, share = problem.batch(cell, step), problem.weights(cell, step)

    def loss(model: Any) -> Tensor:
        return problem.loss(cell.objective, model, batch, share, torch.float64, 0.0)

    return oracle.gradient(exact_model(cell), weights.tensors, loss)


@lru_cache(maxsize=512)
def _at_the_start(cell: Cell, step: int) -> tuple[Noise, tuple[float, float]]:
    """(noise, apart) of plain PyTorch in float32 at the initial weights."""
    start = models.initial(cell.model, cell.seed, torch.float32)
    weights = {n: start[n] for n in reference.trained(cell)}
    micro = reference.micro_gradients(cell, step, weights, torch.float32)
    return _noise(cell, step, weights, micro), reference.apart(micro)


def noise_at(cell: Cell, step: int, weights: Tensors) -> Noise:
    return _noise(cell, step, weights, reference.micro_gradients(cell, step, weights, torch.float32))


def _noise(cell: Cell, step: int, weights: Tensors, micro: list[list[reference.Grads]]) -> Noise:
    """How far plain PyTorch in float32 lies from the oracle, over several orders."""
    wanted = truth(cell, step, weights).grads
    worst: Noise = {}
    for order in reference.orders(cell.split.windows[step]):
        for name, error in errors(reference.rounded_sum(micro, torch.float32, order), wanted)[0].items():
            worst[name] = max(error, worst.get(name, 0.0))
    return worst


def resplit(cell: Cell) -> Iterator[Cell]:
    """The same step dealt out in other ways: in one piece, sample by sample, and in between."""
    for window in (1, 2, 4, 16):
        yield Cell(**{**vars(cell), "split": Split(1, (window,) * cell.split.steps)})


def bounds(noise: Noise, grads: Tensors) -> Noise:
    """Per parameter MARGIN times its own noise, or the root mean square over the parameters where that is more.

    grads : the right gradient; a parameter that has none but for rounding (the bias of attention keys) says
            nothing about the others
    """
    none = without_gradient(grads)
    parameters = [v for n, v in noise.items() if n != WHOLE and n not in none] or [noise[WHOLE]]
    typical = max((sum(v * v for v in parameters) / len(parameters)) ** 0.5, UNIT["fp32"])
    return {name: MARGIN * max(value, typical) for name, value in noise.items()}


def without_gradient(grads: Tensors) -> frozenset[str]:
    _, shares = errors(grads, grads)
    return frozenset(n for n, share in shares.items() if share <= NOTHING)


def _weights(trace: StepTrace) -> _Weights:
    return _Weights(trace.weights_before, tuple(float(t.sum()) for t in trace.weights_before.values()))


@lru_cache(maxsize=256)
def _expected(cell: Cell, step: int, weights: _Weights) -> Expected:
    name = dict(cell.knobs)["dtype"]
    dtype = DTYPES[name]
    right = truth(cell, step, weights.tensors)
    if name == "fp32":
        noise, apart = _at_the_start(cell, step)
        bound = bounds(noise, right.grads)
        return Expected(right.loss, (right.grads,), noise, bound, bound[WHOLE], 0.0, 0.0, apart)
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
    # A norm may be taken of any of these sums, before or after it was rounded: they differ among themselves.
    spread = max(abs(oracle.norm(s) / oracle.norm(sums[0]) - 1) for s in sums)
    noise = {WHOLE: UNIT[name]}
    half = 1.25 * UNIT[name]
    return Expected(right.loss, tuple(sums), noise, {WHOLE: half}, half, model, spread, reference.apart(micro))


def compare(cell: Cell, traces: list[StepTrace], settings: Any, limit: float | None) -> Iterator[Check]:
    """Every check of every step, in the order of DESIGN section 4.

    settings : the driver: ``SGD`` and ``ADAM``, what the optimizer was built with, ``rate`` and ``decay``
    limit    : the max_norm of gradient clipping, None for no clipping
    """
    for before, trace in zip([None, *traces[:-1]], traces, strict=True):
        step, wanted = trace.step, expected(cell, trace)
        if before is None:
            yield _initial(cell, trace)
        if before is not None and cell.facts().get("checkpoint") == "reload":
            moved, where = max(
                distance(trace.master_before, before.master_after),
                distance(trace.weights_before, before.weights_after),  # what forward uses, not only the optimizer's copy
                *((distance(v, before.moments_after[k])[0], k) for k, v in trace.moments_before.items()),
            )
            yield Check("reload", step, moved, 0.0, 0.0, where)
        nearest, gradient = wanted.sums[0], None
        if trace.grad_consumed:
            gradient, nearest = gradient_check(cell, trace, wanted, settings, limit)
            yield gradient
        if trace.loss_seen:
            yield _loss(cell, trace, wanted)
        if trace.grad_norm is not None and (norm := _norm(cell, trace, wanted, settings, limit, nearest, gradient)):
            yield norm
        if trace.grad_consumed:
            yield from _arithmetic(cell, trace, settings)
        yield _cast(cell, trace)
        if cell.split.world_size > 1:
            yield Check("ranks", step, trace.ranks_differ, 0.0, 0.0)
        for api, (what, read) in trace.readings.items():
            if what == "lr":
                off = abs(float(read["lr"]) - trace.lr) / (abs(trace.lr) or 1.0)
                yield Check(f"reading {api}", step, off, UNIT["fp32"], 0.0)
                continue
            if what == "loss after":
                yield _evaluated(f"reading {api}", cell, trace, wanted, float(read["loss"]))
                continue
            right = (trace.weights_before,) if what == "weights before" else wanted.sums
            more = {WHOLE: wanted.spread}
            check = _nearest(f"reading {api}", cell, trace, wanted, settings, read, right, more)[0]
            if check.red and gradient is not None and gradient.red and what == "gradient" and trace.grad_consumed:
                # of a wrong gradient an honest reading is that gradient; once it was clipped it is not known
                if limit is not None and oracle.norm(nearest) > limit:
                    continue
                own = held(check.name, step, read, trace.grad_consumed, {WHOLE: check.bound}, wanted.noise, {})
                check = check if own.red else own
            yield check


def gradient_check(cell: Cell, trace: StepTrace, wanted: Expected, settings: Any, limit: float | None) -> tuple[Check, Tensors]:
    """The check, and which of the right sums (before clipping) the step was nearest to."""
    right = [oracle.clip(s, limit) for s in wanted.sums]
    check, index = _nearest("gradient", cell, trace, wanted, settings, trace.grad_consumed, right, _reading_error(trace))
    return check, wanted.sums[index]


def _nearest(
    name: str, cell: Cell, trace: StepTrace, wanted: Expected, settings: Any, seen: Tensors, right: Any, more: Noise
) -> tuple[Check, int]:
    checks = [held(name, trace.step, seen, r, wanted.bound, wanted.noise, more) for r in right]
    index = min(range(len(checks)), key=lambda i: checks[i].figure / max(checks[i].bound, 1e-300))
    check = checks[index]
    # before anything is accused that rounding could explain, it is looked at once more
    if check.red and not _beyond(seen, right[index], wanted.bound[WHOLE] + more.get(WHOLE, 0.0)):
        noise, bound = _second_look(cell, trace, wanted, settings)
        check = held(name, trace.step, seen, right[index], bound, noise, more)
    return check, index


def _beyond(seen: Tensors, right: Tensors, bound: float) -> bool:
    """Whether the step as a whole is so far off that another split or other weights do not make it rounding.

    Noise grows as training flattens a loss: 400 steps on one batch took it to a seventh of this; cells have at most 16.
    """
    return errors(seen, right)[0][WHOLE] > BEYOND * bound


def _second_look(cell: Cell, trace: StepTrace, wanted: Expected, settings: Any) -> tuple[Noise, Noise]:
    """(noise, bound), measured more widely.

    In float32 the noise was measured at the initial weights, in the cell's own split: here it is measured at
    the step's own weights and in other splits too. In half precision a step may be rounded twice on its way to
    the optimizer, or its micro-batch gradients on another path than a plain loop's: a figure that this can
    explain is not red, but the bound it is then held against is too wide for a pass (see ``blind``).
    """
    if cell.knob("dtype") == "fp32":
        looks = [wanted.noise, *_looks(cell_without_framework(cell), trace.step, _weights(trace))]
        noise = {name: max(look[name] for look in looks) for name in wanted.noise}
        return noise, bounds(noise, wanted.sums[0])
    wider = 2 * wanted.bound[WHOLE] + (MARGIN * wanted.model if settings.rerounds(cell) else 0.0)
    return wanted.noise, {WHOLE: wider}


@lru_cache(maxsize=16)
def _looks(cell: Cell, step: int, weights: _Weights) -> tuple[Noise, ...]:
    return tuple(noise_at(c, step, weights.tensors) for c in (cell, *resplit(cell)))


def _loss(cell: Cell, trace: StepTrace, wanted: Expected) -> Check:
    """The loss that was optimised.

    Before it is accused its rounding is looked at once more: where losses have both signs (advantages) it is relative to
    their sum without signs, not to what is left of them; in half precision a plain loop's own distance counts too.
    """
    scale = max(abs(wanted.loss), 1e-3)
    bound = wanted.loss_bound + trace.loss_error / scale
    figure, noise = abs(trace.loss - wanted.loss) / scale, wanted.noise[WHOLE]
    if not figure <= bound:
        signless = unsigned(cell, trace.step, trace.weights_before)
        bound = max(bound, (wanted.loss_bound * signless + trace.loss_error) / scale)
        dtype = DTYPES[cell.knob("dtype")]
        plain = reference.loss(cell_without_framework(cell), trace.step, trace.weights_before, dtype)
        noise = max(noise, abs(plain - wanted.loss) / scale)
        bound = max(bound, MARGIN * noise + trace.loss_error / scale)
    return Check("loss", trace.step, figure, bound, noise, "", wanted.loss_bound)


def unsigned(cell: Cell, step: int, weights: Tensors) -> float:
    """Sum of |weight * loss| over the targets of the step: |loss| itself where all losses have one sign."""
    batch, share, model = problem.batch(cell, step), problem.weights(cell, step), exact_model(cell)
    total = 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
        for rows in (rows for of_rank in deal(cell.split, step) for rows in of_rank):
            part = batch.take(rows)
            found = problem.losses(cell.objective, model.output(part, torch.float64), part)
            total += float((share[list(rows), : found.shape[1]] * found).abs().sum())
    return total


def _evaluated(name: str, cell: Cell, trace: StepTrace, wanted: Expected, read: float) -> Check:
    """A mean loss that was reported for the samples of this step, at the weights after it."""
    right = truth(cell, trace.step, trace.weights_after).loss
    scale = max(abs(right), 1e-3)
    return Check(name, trace.step, abs(read - right) / scale, wanted.loss_bound, wanted.noise[WHOLE], "", 0.0)


def narrow(trace: StepTrace, wanted: Expected) -> float:
    """What rounding explains of the whole gradient consumed, as it was first measured."""
    return wanted.bound[WHOLE] + _reading_error(trace)[WHOLE]


def tolerance(cell: Cell, trace: StepTrace, wanted: Expected, settings: Any) -> Noise:
    """What rounding may explain of the gradient consumed, at the most, by parameter and of the WHOLE."""
    _, bound = _second_look(cell, trace, wanted, settings)
    return {n: bound.get(n, bound[WHOLE]) + e for n, e in _reading_error(trace).items()}


def _norm(
    cell: Cell, trace: StepTrace, wanted: Expected, settings: Any, limit: float | None, nearest: Tensors, gradient: Check | None
) -> Check | None:
    """The norm reported against that of the right gradient; where the gradient is wrong an honest norm is its own.

    None where the gradient is wrong and was clipped (asked for or not): what was clipped is then not known.
    """
    step, norm, reported = trace.step, oracle.norm(nearest), trace.grad_norm or 0.0
    bound = wanted.bound[WHOLE] + wanted.spread
    figure, honest = abs(reported - norm) / norm, float("inf")
    if not figure <= bound and gradient is not None and gradient.red:
        own = oracle.norm(trace.grad_consumed)
        if (limit is not None and norm > limit) or any(abs(own / n - 1) < 1e-5 for n in USUAL):
            return None
        honest = abs(reported - own) / own if own else abs(reported)
    if not min(figure, honest) <= bound:
        _, wider = _second_look(cell, trace, wanted, settings)
        bound = max(bound, wider[WHOLE] + wanted.spread)
    return Check("norm", step, honest if honest <= bound else figure, bound, wanted.noise[WHOLE])


def _reading_error(trace: StepTrace) -> Noise:
    """What observing the gradient through optimizer state may add, relative, by parameter and of the whole."""
    norms = {n: float(g.norm()) for n, g in trace.grad_consumed.items()}
    whole = sum(v * v for v in norms.values()) ** 0.5 or 1.0
    more = {n: trace.consumed_error[n] / max(v, FLOOR * whole) for n, v in norms.items()}
    return {WHOLE: sum(e * e for e in trace.consumed_error.values()) ** 0.5 / whole, **more}


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


def _arithmetic(cell: Cell, trace: StepTrace, settings: Any) -> Iterator[Check]:
    """Given what was consumed, are the moments what the formula makes of it; given the moments, are the weights?

    The learning rate is the one that was asked for, never the one that the framework reports. The
    weights are float32 numbers and an update is seen no better than a rounding of the result, so its
    error is relative to the weights: four roundings (decay, product, quotient, sum) are the bound. The second
    moment is a square of what was read out of the first, so it carries that reading's error twice.
    """
    asked = settings.SGD if "momentum_buffer" in trace.moments_before else settings.ADAM
    lr = asked["lr"] * settings.rate(cell, trace.step)
    off = abs(trace.lr / lr - 1) if lr else abs(trace.lr)  # a warm-up may begin at zero
    yield Check("lr", trace.step, off, 2.0**-48, 0.0)  # a product of float64 numbers
    unit = UNIT["fp32"]
    before, after = trace.moments_before, trace.moments_after
    if "momentum_buffer" in before:
        key, kept, taken = "momentum_buffer", asked["momentum"], 1.0
        wanted = {n: w - lr * after[key][n] for n, w in trace.master_before.items()}
    else:
        key, kept, taken = "exp_avg", asked["betas"][0], 1 - asked["betas"][0]
        second = {n: asked["betas"][1] * before["exp_avg_sq"][n] + (1 - asked["betas"][1]) * g.square()
                  for n, g in trace.grad_consumed.items()}  # fmt: skip
        more = {n: 2 * e for n, e in _reading_error(trace).items()}
        yield held("moments", trace.step, after["exp_avg_sq"], second, {WHOLE: 8 * unit}, {WHOLE: unit}, more, TINY)
        wanted = oracle.adamw_update(
            trace.master_before, after["exp_avg"], after["exp_avg_sq"], trace.step + 1,
            lr=lr, betas=asked["betas"], eps=asked["eps"],
            weight_decay={n: settings.decay(cell, t.dim()) for n, t in trace.grad_consumed.items()},
        )  # fmt: skip
    first = {n: kept * before[key][n] + taken * g for n, g in trace.grad_consumed.items()}
    # old and new may cancel: the rounding is that of both, the moment what is left
    parts = {n: float(kept * before[key][n].norm() + taken * g.norm()) for n, g in trace.grad_consumed.items()}
    bound = {n: 4 * unit * part / max(float(first[n].norm()), 1e-30) for n, part in parts.items()}
    bound[WHOLE] = 4 * unit * sum(p * p for p in parts.values()) ** 0.5 / max(oracle.norm(first), 1e-30)
    if not trace.consumed_from.startswith(key):  # else the gradient was solved from this very moment
        yield held("moments", trace.step, after[key], first, bound, {WHOLE: unit}, {}, TINY)
    yield held("update", trace.step, trace.master_after, wanted, {WHOLE: 4 * unit}, {WHOLE: unit}, {})


def _cast(cell: Cell, trace: StepTrace) -> Check:
    """The weights that forward will use are the master copy rounded to the model's dtype, exactly."""
    dtype = DTYPES[cell.facts().get("dtype", "fp32")]
    rounded = {n: m.to(torch.float32).to(dtype).double() for n, m in trace.master_after.items()}
    figure, where = max(distance(trace.weights_after, rounded), (trace.frozen_moved, "what does not train"))
    return Check("weights", trace.step, figure, 0.0, 0.0, where if figure else "")


def blind(cell: Cell, checks: list[Check]) -> str | None:
    """Why a clean comparison proves nothing here, or None: the bound is too wide to see a real error."""
    dtype = cell.facts().get("dtype", "fp32")
    limit = SENSITIVITY[dtype] / 3
    widest = max((c.widest for c in checks if c.name in ("gradient", "moments", "loss")), default=0.0)
    if widest > limit:
        return f"cannot tell: the tolerance {widest:.1e} is wider than a third of the error to be caught ({limit:.1e})"
    return None
