"""From effective weights to words (DESIGN, section 5).

Several faults at once are told apart: units that are absent are set aside (``dropped``), units that
count twice too (``double-counted``), what is left is held against the weightings that are known by name
(``re-weighted``), and a common factor besides is ``scaled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from truestep.fixtures import batches, problem
from truestep.fixtures.cell import Cell
from truestep.reports import patterns
from truestep.reports.compare import USUAL
from truestep.reports.effective import TOO_ALIKE, Columns


@dataclass(frozen=True)
class Reading:
    """What is known of one step, for the classifier.

    weights: [n] in units of the right weight (after the clipping that was asked for)
    doubt  : [n]
    norm   : of the gradient consumed; whole: of the right one before clipping; limit: the norm asked for
    """

    cell: Cell
    step: int
    columns: Columns
    weights: Tensor
    doubt: Tensor
    norm: float
    whole: float
    limit: float | None
    ranks_differ: bool


@dataclass(frozen=True)
class Named:
    """kinds and sentences in the same order; ``sure`` says how much they rest on."""

    kinds: tuple[str, ...]
    said: tuple[str, ...]
    sure: str = "certain"
    why: str = ""


def classify(reading: Reading) -> Named:
    """Raises nothing; kinds is empty where every unit has its right weight."""
    if float(reading.doubt.max()) > TOO_ALIKE * max(1.0, float(reading.weights.abs().max())):
        worst = float(reading.doubt.max())
        return Named(
            ("unexplained",),
            ("cannot tell which: the gradients are too alike",),
            "cannot tell",
            f"weights known to {worst:.1g} only",
        )
    should = reading.columns.right > 0
    tolerance = (2 * reading.doubt).clamp(min=1e-6 * float(reading.weights.abs().max()))
    kinds: list[str] = []
    said: list[str] = []
    misplaced = ~should & (reading.weights.abs() > tolerance.clamp(min=1e-3))
    if bool(misplaced.any()):
        kinds.append("misaligned")
        said.append(_misaligned(reading, misplaced, tolerance))
        shifted = "shifted" in said[-1]
        if shifted:
            return Named(tuple(kinds), tuple(said))
    # Where the gradient was clipped to the norm that was asked for, what else was wrong has changed the common factor.
    clipped = reading.limit is not None and abs(reading.norm / reading.limit - 1) < 1e-4 and reading.whole > reading.limit
    rest = _weights_of_units(reading, should, tolerance, renormalised=bool(misplaced.any()) or clipped)
    return Named((*kinds, *rest.kinds), (*said, *rest.said), rest.sure, rest.why)


# --- tokens that must not be in the step ---------------------------------------------------------------


def _misaligned(reading: Reading, misplaced: Tensor, tolerance: Tensor) -> str:
    mask = problem.batch(reading.cell, reading.step).mask
    heavy = (reading.weights.abs() > tolerance.clamp(min=1e-3)).view(mask.shape)  # the units are positions: all of them
    for by, way in ((1, "later"), (-1, "earlier")):
        moved = torch.zeros_like(mask)
        if by > 0:
            moved[:, 1:] = mask[:, :-1]
        else:
            moved[:, :-1] = mask[:, 1:]
        if bool((heavy <= moved).all()) and bool(heavy[moved & ~mask].all()):
            return f"the loss mask is shifted: every token is trained one position {way} than it should be"
    first, last = mask.double().argmax(1, keepdim=True), mask.shape[1] - 1 - mask.flip(1).double().argmax(1, keepdim=True)
    position = torch.arange(mask.shape[1])
    wrong = misplaced.view(mask.shape)
    parts = []
    for name, where in (("prompt", position < first), ("padding", position > last)):
        if bool((wrong & where).any()):
            whole = "every" if bool((wrong == where)[where].all()) else f"{int((wrong & where).sum())} of {int(where.sum())}"
            parts.append(f"{whole} {name} token{'s have' if whole != 'every' else ' has'} weight, and should have none")
    return "; ".join(parts) or "tokens that must not be trained have weight"


# --- tokens, samples, micro-batches that must ----------------------------------------------------------


def _weights_of_units(reading: Reading, should: Tensor, tolerance: Tensor, renormalised: bool) -> Named:
    weights, tol = reading.weights[should], tolerance[should]
    index = [i for i, s in enumerate(should.tolist()) if s]
    zero = weights.abs() <= torch.maximum(tol, 1e-4 * weights.abs().max())
    if bool(zero.all()):
        return Named(("dropped",), (f"every {reading.columns.unit} has weight 0",))
    alone = _one_rank(reading, index, zero)
    if alone:
        return Named(("unreduced",), (alone,))
    own = _clipped_each(reading, weights, tol)
    if own:
        return Named(("clipped",), (own,))
    best: tuple[int, Named] | None = None
    for rank, (words, ratio) in enumerate(_ratios(reading, index)):
        match = _match(reading, index, ratio, weights / ratio, tol / ratio.abs(), zero, words, renormalised)
        if match is not None and (best is None or match[0] + rank / 100 < best[0]):
            best = (match[0], match[1])
            if match[0] == 0:
                break
    if best is not None:
        return best[1]
    live = weights[~zero]
    spread = f"{float(live.min()):.3g} to {float(live.max()):.3g} times what they should be"
    kinds, said = ["re-weighted"], [f"weights differ between {plural(reading.columns.unit)}: {spread}"]
    if bool(zero.any()):
        kinds.insert(0, "dropped")
        said.insert(0, _have_no_weight(reading, index, zero))
    return Named(tuple(kinds), tuple(said), "likely", "the weights are certain; no weighting that is known by name fits them")


def _ratios(reading: Reading, index: Sequence[int]) -> list[tuple[str, Tensor]]:
    """(words, weight of each unit under that weighting, 1 is right), where it is one number per unit."""
    cell, step, tokens = reading.cell, reading.step, reading.columns.tokens[list(index)]
    found = [("", torch.ones(len(index), dtype=torch.float64))]
    objective = problem.weights(cell, step)
    for words, weighting in patterns.weightings(cell, step):
        quotient = torch.where(objective > 0, weighting / objective, torch.nan)
        ratio = []
        for row in tokens:
            inside = quotient[row > 0]
            if float(inside.max() - inside.min()) > 1e-9 * float(inside.max()):
                break
            ratio.append(float(inside[0]))
        if len(ratio) == len(index):
            found.append((words, torch.tensor(ratio, dtype=torch.float64)))
    return found


def _match(
    reading: Reading,
    index: Sequence[int],
    ratio: Tensor,
    quotient: Tensor,
    tol: Tensor,
    zero: Tensor,
    words: str,
    renormalised: bool,
) -> tuple[int, Named] | None:
    """(cost, naming) if the units that are there have one weight, or twice it; the cheapest naming wins."""
    live = quotient[~zero]
    slack = tol[~zero]
    if words and len(live) < 2:
        return None
    # the common factor: the value that most units have, the one nearest 1 where two have as many
    votes = [int(((live / v - 1).abs() <= 2 * slack / abs(v) + 1e-9).sum()) if v else 0 for v in live.tolist()]
    most = [v for v, n in zip(live.tolist(), votes, strict=True) if n == max(votes)]
    about = min(most, key=lambda v: abs(v - 1))
    alike = (live - about).abs() <= 2 * slack + 1e-9
    factor = float(live[alike].mean())
    precision = float(slack[alike].max()) / abs(factor)
    twice = ~alike & ((live / factor - 2).abs() <= 3 * slack / abs(factor) + 1e-9)
    if not bool((alike | twice).all()):
        return None
    plain = abs(factor - 1) <= max(precision, 1e-9)
    names = [] if plain else patterns.names_of(reading.cell, reading.step, factor, max(precision, 1e-6))
    renormalised = renormalised and factor > 0
    clipped = _factor(reading, factor, 0.0, (), ("?",))[0] == "clipped"
    loose = words or bool(twice.any()) or (bool(zero.any()) and len(live) < 2)
    if not plain and not names and loose and not (renormalised or clipped):
        return None  # too many free numbers for a name
    kinds: list[str] = []
    said: list[str] = []
    sure, why = "certain", ""
    if words:
        kinds.append("re-weighted")
        said.append(words)
        if len({round(v, 6) for v in ratio[~zero].tolist()}) <= 2:
            sure, why = "likely", "only two different weights speak for this weighting"
    if bool(zero.any()):
        kinds.append("dropped")
        said.append(_have_no_weight(reading, index, zero))
    if bool(twice.any()):
        kinds.append("double-counted")
        doubled = torch.zeros_like(zero)
        doubled[torch.nonzero(~zero).flatten()[twice]] = True
        named = _units(reading, index, doubled)
        many = named.startswith(plural(reading.columns.unit)) or " and " in named
        said.append(f"{named} {'are' if many else 'is'} counted twice")
    if not plain and not renormalised:
        kind, text = _factor(reading, factor, precision * abs(factor), names, kinds)
        kinds.append(kind)
        said.append(text)
        if len(names) > 1:
            sure, why = "likely", "several factors have this value"
    cost = 0 if not words and not kinds else (2 if words else 1) + (not plain) + (2 if bool(twice.any()) else 0)
    return cost, Named(tuple(kinds), tuple(said), sure, why)


def _factor(reading: Reading, factor: float, doubt: float, names: Sequence[str], kinds: Sequence[str]) -> tuple[str, str]:
    whole = not kinds
    everything = "the rest" if {"dropped", "double-counted"} & set(kinds) else "everything"
    value = patterns.number(factor, doubt)
    limit = reading.limit
    asked = 1.0 if limit is None else min(1.0, limit / (reading.whole + 1e-6))
    if asked < 1 and abs(factor * asked - 1) < 1e-4:
        return "clipped", f"the gradient was not clipped: norm {reading.norm:.4g} where {limit:g} was asked for"
    if whole and limit is not None and (asked < 1 or abs(reading.norm / limit - 1) < 1e-4):
        return (
            "clipped",
            f"clipping gave norm {reading.norm:.4g} where {min(limit, reading.whole):.4g} was asked for: everything x {value}",
        )
    if 0 < factor < 1 and limit is None:
        for norm in USUAL:
            if abs(reading.norm / norm - 1) < 1e-5:
                return "clipped", f"the gradient was clipped to norm {norm:g} though nobody asked ({everything} x {value})"
    if reading.norm == 0:
        return "dropped", "the gradient is zero"
    called = f" ({' or '.join(names)})" if names else ""
    return "scaled", f"{everything} x {value}{called}"


def _clipped_each(reading: Reading, weights: Tensor, tol: Tensor) -> str:
    """Every micro-batch scaled to the same norm by itself, or left alone where it was smaller."""
    if reading.columns.unit != "micro-batch" or len(weights) < 2:
        return ""
    asked = 1.0 if reading.limit is None else min(1.0, reading.limit / (reading.whole + 1e-6))
    raw = weights * asked
    sizes = raw * reading.columns.values.norm(dim=1) * reading.cell.split.world_size
    below = (raw - 1).abs() <= tol
    clipped = sizes[~below]
    if (
        len(clipped) < 2
        or bool((clipped <= 0).any())
        or bool((raw[~below] >= 1).any())
        or float(clipped.max() / clipped.min() - 1) > 1e-3
    ):
        return ""
    if bool((sizes[below] > float(clipped.max()) * 1.001).any()) or float(raw[~below].max() - raw[~below].min()) < 10 * float(
        tol.max()
    ):
        return ""
    return f"every micro-batch was clipped to norm {float(clipped.mean()):.4g} by itself, before the sum"


def _one_rank(reading: Reading, index: Sequence[int], zero: Tensor) -> str:
    """Whether only one rank's gradient is in the step, or in some micro-batches of it."""
    cell = reading.cell
    ranks = cell.split.world_size
    if ranks == 1 or reading.columns.unit in ("token", "position") or not bool(zero.any()):
        return ""
    where = {}
    for r, rank in enumerate(batches.deal(cell.split, reading.step)):
        for k, rows in enumerate(rank):
            for row in rows:
                where[row] = (r, k)
    places = [reading.columns.places[i] for i in index]
    at = [p if reading.columns.unit == "micro-batch" else where[p[0]] for p in places]
    silent = [r for r in range(ranks) if all(bool(z) for (q, _), z in zip(at, zero, strict=True) if q == r)]
    if silent:
        if not reading.ranks_differ:
            return ""
        return f"the gradient was not reduced over ranks: the samples of rank {_list(silent)} have weight 0 on rank 0"
    window = cell.split.windows[reading.step]
    lonely = []
    for k in range(window):
        absent = {q for (q, j), z in zip(at, zero, strict=True) if j == k and bool(z)}
        heavy = [
            float(w) for (q, j), w, z in zip(at, reading.weights[list(index)], zero, strict=True) if j == k and not bool(z)
        ]
        if 0 < len(absent) < ranks and heavy and (reading.ranks_differ or abs(heavy[0] - ranks) < 0.1):
            lonely.append(k + 1)
    if lonely and len(lonely) == len({j for (_, j), z in zip(at, zero, strict=True) if bool(z)}):
        those = f"micro-batch {lonely[0]} was" if len(lonely) == 1 else f"micro-batches {_list(lonely)} were"
        return f"{those} not reduced over ranks: only one rank's samples count"
    return ""


def plural(unit: str) -> str:
    unit = "token" if unit == "position" else unit
    return unit + ("es" if unit == "micro-batch" else "s")


# --- words ------------------------------------------------------------------------------------------------


def _have_no_weight(reading: Reading, index: Sequence[int], zero: Tensor) -> str:
    if reading.columns.unit in ("token", "position"):
        return _tokens(reading, index, zero)
    named = _units(reading, index, zero)
    many = named.startswith(plural(reading.columns.unit)) or " and " in named
    return f"{named} {'have' if many else 'has'} weight 0"


def _units(reading: Reading, index: Sequence[int], chosen: Tensor) -> str:
    """ "micro-batches 2 to 7 of 8 on 2 ranks", "samples 3 and 9 of 16"."""
    unit, cell = reading.columns.unit, reading.cell
    places = [reading.columns.places[i] for i, c in zip(index, chosen, strict=True) if bool(c)]
    if unit in ("token", "position"):
        return f"{len(places)} of {len(index)} trained tokens"
    numbers = sorted({p[-1] + 1 for p in places})
    noun = unit if len(numbers) == 1 else plural(unit)
    if unit == "sample":
        return f"{noun} {_list(numbers)} of {len(reading.columns.places)}"
    ranks, window = cell.split.world_size, cell.split.windows[reading.step]
    if ranks == 1:
        return f"{noun} {_list(numbers)} of {window}"
    mine = sorted({p[0] for p in places})
    if len(places) == len(mine) * len(numbers):  # the same ones on each of these ranks
        return f"{noun} {_list(numbers)} of {window} on " + (f"{ranks} ranks" if len(mine) == ranks else f"rank {_list(mine)}")
    each = [sorted(k + 1 for r, k in places if r == rank) for rank in mine]
    return " and ".join(
        f"{unit if len(some) == 1 else plural(unit)} {_list(some)} of {window} on rank {rank}"
        for rank, some in zip(mine, each, strict=True)
    )


def _tokens(reading: Reading, index: Sequence[int], zero: Tensor) -> str:
    mask = problem.batch(reading.cell, reading.step).mask
    gone = {reading.columns.places[i] for i, z in zip(index, zero, strict=True) if bool(z)}
    rows = [(i, [t for t in range(mask.shape[1]) if bool(mask[i, t])]) for i in range(len(mask))]
    for name, at in (("first", 0), ("last", -1)):
        if gone == {(i, own[at]) for i, own in rows if own}:
            return f"the {name} trained token of every sample has weight 0"
    return f"{len(gone)} of {int(mask.sum())} trained tokens have weight 0"


def _list(values: Sequence[int]) -> str:
    items = [str(v) for v in values]
    if len(items) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{items[0]} to {items[-1]}"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
