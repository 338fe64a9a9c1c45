"""Which term of an objective was dropped, counted twice or scaled: for objectives that are made of several named terms.

A term is a block of units that stand side by side in every sample (``fixtures/own_models.py``). One weight per term is the
fewest numbers that can say something of it, one per term and micro-batch comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from truestep.fixtures import batches, objectives, problem
from truestep.reports import effective, patterns
from truestep.reports.verdict import Diagnosis

if TYPE_CHECKING:
    from truestep.reports.diagnose import Question

Block = tuple[str, int, int]


def explain(question: Question, gradient: Tensor) -> Diagnosis | None:
    """None where there is one term only, where weights of terms explain nothing, or all of them are weighted alike."""
    blocks: tuple[Block, ...] = getattr(objectives.of(question.cell.objective), "terms", ())
    if len(blocks) < 2:
        return None
    tokens = question.columns("token")
    for by_micro_batch in (False, True):
        group, places, window = _groups(question, tokens, blocks, by_micro_batch)
        columns = torch.zeros(len(places), tokens.values.shape[1], dtype=torch.float64).index_add_(0, group, tokens.values)
        fit = effective.fit(gradient, columns)
        if fit is None or not question.explained("token", fit.residual):
            continue
        weights, doubt = fit.weights / question.asked, fit.doubt / question.asked
        known = f"weights known to {float(doubt.max()):.1g}, condition {fit.condition:.3g}, unexplained {fit.residual:.1g} of the gradient"
        if not float(doubt[torch.isfinite(doubt)].max()) <= effective.TOO_ALIKE:
            continue
        table = weights.view(len(blocks), window)
        if float((table - table[:1]).abs().max()) <= 1e-5:  # a fault of micro-batches, or of the whole: others name it
            return None
        kinds, said, shown = _named(question, blocks, table, max(2 * float(doubt[torch.isfinite(doubt)].max()), 1e-6))
        if not kinds:
            return None
        known = f"weights of the terms, 1 is right: {', '.join(shown)}; {known}"
        return Diagnosis(
            tuple(dict.fromkeys(kinds)), "; ".join(said), residual=fit.residual, unit="term", doubt=float(doubt.max()),
            condition=fit.condition, sure="certain", why=known,
        )  # fmt: skip
    return None


def _groups(
    question: Question, tokens: effective.Columns, blocks: tuple[Block, ...], by_micro_batch: bool
) -> tuple[Tensor, list[tuple[int, int]], int]:
    """(group of every column, the (term, micro-batch) of every group, micro-batches told apart)."""
    (dealt,) = batches.deal(question.cell.split, question.trace.step)  # one rank
    of_row = {row: k if by_micro_batch else 0 for k, rows in enumerate(dealt) for row in rows}
    window = len(dealt) if by_micro_batch else 1
    of_unit = [j for j, (_, a, b) in enumerate(blocks) for _ in range(b - a)]
    group = torch.tensor([of_unit[u] * window + of_row[i] for i, u in tokens.places])
    return group, [(j, k) for j in range(len(blocks)) for k in range(window)], window


def _named(question: Question, blocks: tuple[Block, ...], table: Tensor, slack: float) -> tuple[list[str], list[str], list[str]]:
    """(kinds, sentences, the weights as text). table: [terms, micro-batches]"""
    kinds, said, shown = [], [], []
    cell, step = question.cell, question.trace.step
    (dealt,) = batches.deal(cell.split, step)
    mask: Any = problem.batch(cell, step).mask
    for (name, a, b), row in zip(blocks, table, strict=True):
        counts = torch.tensor([float(mask[list(rows), a:b].sum()) for rows in dealt], dtype=torch.float64)
        live = counts > 0 if len(row) > 1 else torch.ones(1, dtype=torch.bool)
        values = row[live]
        shown.append(f"{name} " + (_short(float(row[0]), slack) if len(row) == 1 else _listed(row, live, slack)))
        if float((values - 1).abs().max()) <= slack:
            continue
        mean = counts.sum() / (len(counts) * counts.clamp(min=1))
        rest = values / mean[live] if len(row) > 1 else values
        if float(values.max() - values.min()) <= slack:
            kind, words = _one(question, float(values.mean()), slack)
        elif bool(((values.abs() <= slack) | ((values - 1).abs() <= slack)).all()):
            gone = [str(k + 1) for k in range(len(row)) if bool(live[k]) and abs(float(row[k])) <= slack]
            kind, words = "dropped", f"has weight 0 in micro-batch{'es' * (len(gone) > 1)} {', '.join(gone)} of {len(row)}"
        elif bool(((values - 2).abs() <= slack).any()) and bool((((values - 2).abs() <= slack) | ((values - 1).abs() <= slack)).all()):
            twice = [str(k + 1) for k in range(len(row)) if bool(live[k]) and abs(float(row[k]) - 2) <= slack]
            kind, words = "double-counted", f"is counted twice in micro-batch{'es' * (len(twice) > 1)} {', '.join(twice)} of {len(row)}"
        elif float(rest.max() / rest.min() - 1) <= 10 * slack and float(rest.min()) > 0:
            kind, words = "re-weighted", "is a mean of means: averaged over the units of every micro-batch, then over the micro-batches"
            if abs(float(rest.mean()) - 1) > 10 * slack:
                words += f", and all of it {_one(question, float(rest.mean()), 10 * slack)[1]}"
        else:
            kind, words = "re-weighted", f"weighs {float(values.min()):.3g} to {float(values.max()):.3g} times what it should"
        kinds.append(kind)
        said.append(f"the {name} term {words}")
    return kinds, said, shown


def _one(question: Question, factor: float, slack: float) -> tuple[str, str]:
    """(kind, words) of a term that has one weight throughout."""
    if abs(factor) <= slack:
        return "dropped", "has weight 0"
    if abs(factor - 2) <= slack:
        return "double-counted", "is counted twice"
    names = patterns.names_of(question.cell, question.trace.step, factor, slack)
    called = f" ({' or '.join(names)})" if names else ""
    return "scaled", f"x {patterns.number(factor, slack)}{called}"


def _listed(row: Tensor, live: Tensor, slack: float) -> str:
    return "(" + ", ".join(_short(float(w), slack) if bool(here) else "-" for w, here in zip(row, live, strict=True)) + ")"


def _short(weight: float, slack: float) -> str:
    return "0" if abs(weight) <= slack else f"{weight:.3g}"
