"""What was done wrong: the effective weights of the gradient consumed, named (DESIGN, section 5).

Hypotheses are tried from the fewest numbers to the most, and the first that leaves nothing but rounding
unexplained is believed: one weight per micro-batch; the same and what else may be in a gradient (the
previous step's, the optimizer's old momentum, the weights themselves); one weight per sample; per token;
and at last every parameter by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from truestep.fixtures import oracle, problem, reference
from truestep.fixtures.batches import Batch
from truestep.fixtures.cell import Cell
from truestep.fixtures.trace import StepTrace
from truestep.reports import classify, compare, effective, patterns, terms
from truestep.reports.classify import Named, Reading
from truestep.reports.verdict import Diagnosis

NOT_FINITE = "the gradient is not finite"
SLACK = 2.0  # a residual up to this multiple of the bound is rounding
HALF = 2e-2  # what two models in half precision, run in different shapes, may differ by (FACTS: 0.3 to 2 %)


@dataclass(frozen=True)
class Question:
    """One red step. ``right``: the gradient that should have been consumed, after the clipping asked for."""

    cell: Cell
    trace: StepTrace
    previous: StepTrace | None
    limit: float | None
    right: Mapping[str, Tensor]
    whole: float  # norm of the right gradient before clipping
    narrow: float  # what rounding explains of the whole where it was first measured, relative
    tolerance: Callable[[], Mapping[str, float]]  # what it may explain at the most, by parameter and of the whole ("")
    kept: float  # weight of the optimizer's first moment in its next value, in units of a gradient: mu, or b1 / (1 - b1)

    @cached_property
    def bound(self) -> Mapping[str, float]:
        """Measured when it is needed: over other splits and at the step's own weights, it costs more than a diagnosis."""
        return self.tolerance()

    @property
    def rounding(self) -> float:
        return self.bound[""]

    @property
    def half(self) -> bool:
        return bool(self.cell.facts().get("dtype", "fp32") != "fp32")

    @property
    def dtype(self) -> torch.dtype:
        """What the columns are computed in."""
        return compare.DTYPES[self.cell.facts().get("dtype", "fp32")] if self.half else torch.float64

    @property
    def asked(self) -> float:
        """The factor that the clipping that was asked for multiplies with."""
        return 1.0 if self.limit is None else min(1.0, self.limit / (self.whole + 1e-6))

    @cached_property
    def term(self) -> dict[str, Tensor]:
        """The gradient of what the objective has besides the losses of its units, as it enters a right step."""
        cell, step, weights = self.cell, self.trace.step, self.trace.weights_before
        if not problem.has_term(cell.objective):
            return {}
        whole = effective.flatten(cell, compare.truth(cell, step, weights).grads)
        columns = effective.columns(cell, step, weights, torch.float64, "micro-batch")
        return {TERM[0]: whole - columns.values.sum(0)}

    def columns(self, unit: str) -> effective.Columns:
        """What each unit puts into a right step, computed once."""
        if unit not in self._columns:
            self._columns[unit] = effective.columns(self.cell, self.trace.step, self.trace.weights_before, self.dtype, unit)
        return self._columns[unit]

    @cached_property
    def _columns(self) -> dict[str, effective.Columns]:
        return {}

    def explained(self, unit: str, residual: float) -> bool:
        """Whether weights of such units that leave this residual explain the gradient."""
        if not self.half and not 1 < residual / (SLACK * self.narrow) < compare.BEYOND:
            return residual <= SLACK * self.narrow
        return residual <= self.leaves(unit)

    def leaves(self, unit: str) -> float:
        """The residual below which weights of such units explain the gradient."""
        if not self.half:
            return SLACK * self.rounding
        return HALF if unit == "micro-batch" else 2 * HALF


def diagnose(question: Question, detail: bool = False) -> Diagnosis:
    """``detail``: also the weights of samples and tokens, for what is reported."""
    cell, trace = question.cell, question.trace
    gradient = effective.flatten(cell, trace.grad_consumed)
    if not bool(torch.isfinite(gradient).all()):
        return Diagnosis(("unexplained",), NOT_FINITE, sure="certain")
    if float(gradient.norm()) == 0.0:
        return Diagnosis(("dropped",), "every micro-batch has weight 0: the gradient is zero", sure="certain")
    extra: dict[str, Tensor] | None = None
    doubtful = terms.explain(question, gradient)
    if doubtful is not None:
        return _with_detail(question, gradient, doubtful) if detail else doubtful
    for unit, wider in (
        ("micro-batch", 0),
        ("micro-batch", 1),
        ("sample", 0),
        ("token", 0),
        ("position", 0),
        ("sample", 1),
        ("position", 1),
    ):
        if wider and extra is None:
            extra = _others(question)
        answer = _weigh(question, gradient, unit, extra if wider and extra else {})
        if answer is None:
            continue
        named, diagnosis = answer
        if named.sure == "cannot tell":
            doubtful = doubtful or diagnosis
        elif named.kinds:
            return _with_detail(question, gradient, diagnosis) if detail else diagnosis
        elif not wider:
            break  # every unit has its right weight: the error is within parameters
    last = _by_parameter(question, gradient)
    return last if last and ("unexplained" not in last.kinds or doubtful is None) else doubtful or _unexplained(question)


def weigh(question: Question) -> Diagnosis:
    """The effective weights of micro-batches and samples where there is nothing to explain: of a step that is right."""
    gradient = effective.flatten(question.cell, question.trace.grad_consumed)
    answer = _weigh(question, gradient, "micro-batch", {})
    diagnosis = _unexplained(question) if answer is None else _with_detail(question, gradient, answer[1])
    return replace(diagnosis, kinds=(), words="every micro-batch weighs what it should")


# --- weights of units ------------------------------------------------------------------------------------


def _weigh(question: Question, gradient: Tensor, unit: str, extra: Mapping[str, Tensor]) -> tuple[Named, Diagnosis] | None:
    """None where weights of such units do not explain the gradient."""
    cell, trace = question.cell, question.trace
    columns = question.columns(unit)
    term = question.term
    extra = {**term, **extra}
    fit = effective.fit(gradient, columns.values, list(extra.values()))
    if fit is None or not question.explained(unit, fit.residual):
        return None
    right = {label: question.asked for label in term}  # what belongs to a step besides its units
    found = {
        label: float(w)
        for label, w, doubt in zip(extra, fit.others, fit.others_doubt, strict=True)
        if abs(float(w) - right.get(label, 0.0)) > max(3 * float(doubt), 1e-6)
    }
    if len(extra) > len(term) and not set(found) - set(term):
        return None
    weights, doubt = fit.weights / question.asked, fit.doubt / question.asked
    if question.half:
        off = float((gradient - effective.flatten(cell, question.right)).norm()) / float(gradient.norm())
        if fit.residual > 0.8 * off:  # the error is still there
            return None
        if unit != "micro-batch":  # the whole batch at once rounds otherwise than micro-batches do
            doubt = doubt.clamp(min=HALF / 2)
        elif cell.facts().get("grad_accum_dtype") in ("bf16", "fp16"):  # every sum on the way is rounded
            doubt = doubt.clamp(min=2.0**-8)
    norm = float(gradient.norm())
    reading = Reading(cell, trace.step, columns, weights, doubt, norm, question.whole, question.limit, trace.ranks_differ > 0)
    named = _only_others(reading, found) or classify.classify(reading)
    for label, weight in found.items():
        if label in term:
            factor = weight / question.asked
            names = patterns.names_of(cell, trace.step, factor, max(3 * float(fit.others_doubt.max()), 1e-6))
            called = f" ({' or '.join(names)})" if names else ""
            text = f"the {label} x {patterns.number(factor, float(fit.others_doubt.max()))}{called}"
            named = replace(named, kinds=tuple(dict.fromkeys((*named.kinds, "scaled"))), said=(*named.said, text))
            continue
        kind, words = OTHERS[label.partition("+")[0]]
        unsure = float(fit.others_doubt.max())
        replaced = not named.kinds  # then the column stands as it was consumed; else what was clipped since is not known
        text = f"{words} with weight {patterns.number(weight, unsure)}" if replaced or question.asked == 1 else words
        if label.endswith("+momentum"):
            text += ", or the optimizer's old momentum (here one is a multiple of the other)"
        if abs(weight + _lost(question, extra[label])) <= 3 * max(unsure, 1e-6):
            text = "the optimizer's momentum was lost before this step"
        named = replace(named, kinds=tuple(dict.fromkeys((*named.kinds, kind))), said=(*named.said, text))
    known = f"weights known to {float(doubt.max()):.1g}, condition {fit.condition:.3g}, unexplained {fit.residual:.1g} of the gradient"
    diagnosis = Diagnosis(
        named.kinds or ("unexplained",),
        "; ".join(named.said),
        residual=fit.residual,
        unit=unit,
        doubt=float(doubt.max()),
        condition=fit.condition,
        sure=named.sure,
        why="; ".join(filter(None, (known, named.why))),
    )
    return named, _shown(diagnosis, unit, columns, weights, cell, trace.step)


def _only_others(reading: Reading, found: Mapping[str, float]) -> Named | None:
    """Where something else has taken the place of the whole gradient, the units are not missing but replaced."""
    if set(found) - set(TERM) and bool((reading.weights.abs() <= (3 * reading.doubt).clamp(min=1e-3)).all()):
        return Named((), ())
    return None


def _shown(diagnosis: Diagnosis, unit: str, columns: effective.Columns, weights: Tensor, cell: Cell, step: int) -> Diagnosis:
    values = weights.tolist()
    if unit == "micro-batch":
        window = cell.split.windows[step]
        rows = tuple(tuple(values[r * window : (r + 1) * window]) for r in range(cell.split.world_size))
        return replace(diagnosis, weights=rows)
    if unit == "sample":
        return replace(diagnosis, samples=tuple(values))
    samples, length = columns.tokens.shape[1:]
    table: list[list[float | None]] = [[None] * length for _ in range(samples)]
    for (i, t), value in zip(columns.places, values, strict=True):
        table[i][t] = value
    return replace(diagnosis, tokens=tuple(map(tuple, table)))


def _with_detail(question: Question, gradient: Tensor, diagnosis: Diagnosis) -> Diagnosis:
    """The weights of the finer units as well, where they are known well enough to be shown."""
    cell, trace = question.cell, question.trace
    coarser = diagnosis.unit if diagnosis.unit in effective.UNITS else effective.UNITS[0]
    for unit in effective.UNITS[effective.UNITS.index(coarser) + 1 :]:
        columns = question.columns(unit)
        fit = effective.fit(gradient, columns.values, list(question.term.values()))
        if diagnosis.tokens and unit == "position":
            break
        if fit is None or not question.explained(unit, fit.residual) or float(fit.doubt.max()) > effective.TOO_ALIKE * question.asked:
            continue
        diagnosis = _shown(diagnosis, unit, columns, fit.weights / question.asked, cell, trace.step)
    return diagnosis


TERM = ("auxiliary loss",)  # what an objective's term is called

# --- what else may be in a gradient ----------------------------------------------------------------------

OTHERS = {
    "previous": ("stale", "the previous step's gradient is in it"),
    "momentum": ("stale", "the optimizer's old momentum is in it"),
    "old weights": ("stale", "the gradient at the weights of the step before is in it"),
    "weights": ("unexplained", "the weights themselves are in it (as weight decay would be)"),
    "targets later": ("misaligned", "the gradient for targets shifted one position (to the token itself) is in it"),
    "targets earlier": ("misaligned", "the gradient for targets shifted by one position too many is in it"),
}


def _others(question: Question) -> dict[str, Tensor]:
    cell, trace, previous = question.cell, question.trace, question.previous
    found: dict[str, Tensor] = {}
    if previous is not None:
        if previous.grad_consumed:
            found["previous"] = effective.flatten(cell, previous.grad_consumed)
        for key in ("momentum_buffer", "exp_avg"):
            if key in trace.moments_before:
                found["momentum"] = effective.flatten(cell, trace.moments_before[key])
        found["old weights"] = effective.flatten(cell, compare.truth(cell, trace.step, previous.weights_before).grads)
    found["weights"] = effective.flatten(cell, trace.master_before)
    batch, share = problem.batch(cell, trace.step), problem.weights(cell, trace.step)
    for label, by in (("targets later", 1), ("targets earlier", -1)):
        if cell.task not in ("mlp", "lm") or (batch.targets.dim() == 3 and cell.task == "lm"):
            break
        moved = replace(batch, targets=batch.targets.roll(by, 1))

        def loss(model: Any, moved: Batch = moved) -> Tensor:
            return problem.loss(cell.objective, model, moved, share, torch.float64, 0.0)

        gradient = oracle.gradient(compare.exact_model(cell), trace.weights_before, loss)
        found[label] = effective.flatten(cell, gradient.grads)
    return _independent({n: g for n, g in found.items() if float(g.norm()) > 0})


def _lost(question: Question, column: Tensor) -> float:
    """Minus the weight that ``column`` has in a gradient read through an optimizer state that was lost meanwhile."""
    for key in ("momentum_buffer", "exp_avg"):
        if key in question.trace.moments_before:
            moment = effective.flatten(question.cell, question.trace.moments_before[key])
            share = float(moment @ column) / float(column @ column)
            return (
                question.kept * share
                if float((moment - share * column).norm()) <= 1e-3 * float(moment.norm())
                else float("inf")
            )
    return float("inf")


def _independent(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without those that are a multiple of an earlier one (the momentum of the second step is its gradient): the
    name says so, previous+momentum."""
    kept: dict[str, Tensor] = {}
    for name, column in columns.items():
        twin = next(
            (k for k, v in kept.items() if abs(float(column @ v)) >= (1 - 1e-6) * float(column.norm() * v.norm())), None
        )
        if twin is None:
            kept[name] = column
        elif name == "momentum":
            kept = {f"{k}+{name}" if k == twin else k: v for k, v in kept.items()}
    return kept


# --- every parameter by itself ---------------------------------------------------------------------------


def _by_parameter(question: Question, gradient: Tensor) -> Diagnosis | None:
    """No one set of weights explains the step: perhaps one for each parameter does (a parameter that was
    left out or scaled, a shard that was not reduced)."""
    cell, trace = question.cell, question.trace
    names = reference.trained(cell)
    columns = question.columns("micro-batch")
    sizes = [trace.grad_consumed[n].numel() for n in names]
    parts = dict(zip(names, torch.split(columns.values, sizes, dim=1), strict=True))
    ranks, window = cell.split.world_size, cell.split.windows[trace.step]
    right: list[str] = []
    gone: list[str] = []
    lonely: list[str] = []
    other: list[str] = []
    scaled: dict[str, float] = {}
    leaves = SLACK * question.rounding
    for name in names:
        target, wanted = trace.grad_consumed[name].flatten(), question.right[name].flatten()
        size = float(wanted.norm())
        if size == 0.0:
            (right if float(target.norm()) == 0 else other).append(name)
            continue
        factor = float(target @ wanted) / size**2
        left = float((target - factor * wanted).norm()) / size
        noise = question.bound.get(name, question.rounding)
        if float((target - wanted).norm()) / size <= noise:
            right.append(name)
        elif float(target.norm()) <= noise * size and left * size >= 0.1 * float(
            target.norm()
        ):  # next to nothing, of no direction
            gone.append(name)
        elif left <= max(leaves, noise * abs(factor)) and target.numel() > 3 and abs(factor - 1) > noise:
            scaled[name] = factor
        else:
            fit = effective.fit(target, parts[name])
            weights = [] if fit is None or fit.residual > leaves else (fit.weights / question.asked).tolist()
            if weights and _counts_one_rank(weights, ranks, window):
                lonely.append(name)
            else:
                other.append(name)
    if lonely:
        words = f"shards were stepped on one rank's own gradient, not (or not wholly) reduced over ranks: {_some(lonely)}"
        return Diagnosis(("unreduced",), words, where=tuple(lonely), sure="likely", why="weights of one parameter at a time")
    if not other and (gone or scaled):
        kinds, said = [], []
        if gone:
            kinds.append("dropped")
            said.append(f"{_some(gone)}: every micro-batch has weight 0")
        for factor in sorted({_rough(f) for f in scaled.values()}):
            same = [n for n, f in scaled.items() if _rough(f) == factor]
            kinds.append("scaled")
            noisy = max(question.bound.get(n, question.rounding) for n in same)
            named = patterns.names_of(cell, trace.step, factor, 1e-5)
            said.append(
                f"{_some(same)}: everything x {patterns.number(factor, noisy)}" + (f" ({' or '.join(named)})" if named else "")
            )
        said.append("the other parameters are right" if right else "no parameter is right")
        where = (*gone, *scaled)
        return Diagnosis(
            tuple(dict.fromkeys(kinds)), "; ".join(said), where=where, sure="certain", why="each parameter by itself"
        )
    if not question.half and (coarse := _rounded(question)):
        words = f"every parameter looks as if rounded to {coarse} on the way; every micro-batch has its right weight to that precision"
        return Diagnosis(("rounded",), words, sure="likely", why="the relative error is alike everywhere and of that size")
    if other:
        words = f"no weights of micro-batches, samples or tokens explain the gradient; the error is in {_some(other)}"
        words += f", while {_some(right)} is right" if right else ""
        return Diagnosis(
            ("unexplained",), words, where=tuple(other), sure="cannot tell", why="nothing offered leaves only rounding"
        )
    return None


def _rough(factor: float) -> float:
    """To six digits: what float32 tells apart."""
    return float(f"{factor:.6g}")


def _rounded(question: Question) -> str:
    """The coarser dtype whose rounding the error looks like: relative errors of that size in every parameter."""
    errors = []
    for name, wanted in question.right.items():
        live = wanted.abs() > 1e-2 * wanted.abs().max()
        if bool(live.any()):
            seen = question.trace.grad_consumed[name]
            errors.append(float(((seen - wanted)[live] / wanted[live]).abs().median()))
    if not errors:
        return ""
    low, high = min(errors), max(errors)
    for dtype, unit in (("bf16", 2.0**-8), ("fp16", 2.0**-11)):
        if unit / 16 <= low and high <= 2 * unit:
            return dtype
    return ""


def _unexplained(question: Question) -> Diagnosis:
    return Diagnosis(("unexplained",), "the error lies below what weights can tell", sure="cannot tell")


def _counts_one_rank(weights: Sequence[float], ranks: int, window: int) -> bool:
    """Whether some micro-batch has weight 0 on all ranks but one, where it counts for all of them."""
    for k in range(window):
        across = sorted(abs(weights[r * window + k]) for r in range(ranks))
        if ranks > 1 and across[-2] < 0.05 and abs(across[-1] - ranks) < 0.1 * ranks:
            return True
    return False


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
