"""Effective weights: how much of every micro-batch, sample or token is in the gradient that was consumed.

The gradient a framework used is almost always a weighted sum of per-token gradients. The gradients of
the units of a batch are taken at the step's own weights, each as it enters a right step, and least squares
on the gradient consumed gives the weight that every unit really had: 1 is right, 0 is absent. The error of
such a weight is about the rounding in the gradient times the 2-norm of the unit's row of the
pseudo-inverse (https://en.wikipedia.org/wiki/Moore-Penrose_inverse, least squares): the ``doubt``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from truestep.fixtures import batches, models, problem, reference
from truestep.fixtures.cell import Cell

UNITS = ("micro-batch", "sample", "token", "position")
SMALLEST = 2.0**-23  # what a float32 gradient carries at the least, relative
TOO_ALIKE = 0.2  # a weight that is not known to this is not known


@dataclass(frozen=True)
class Columns:
    """The gradients of the units of one step.

    unit   : micro-batch, sample, token (those that are trained) or position (prompt and padding too)
    places : for a micro-batch (rank, k), for a sample (row,), for a token or position (row, position)
    values : float64 [n, P], how the unit enters a right step; a token that must not enter one (prompt,
             padding) as it would with the mean weight of those that do
    right  : float64 [n], 1, or 0 for a token that must not be in the step
    tokens : float64 [n, B, T], the weight of every token of the batch in that column
    """

    unit: str
    places: tuple[tuple[int, ...], ...]
    values: Tensor
    right: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Fit:
    """Weights of the columns (and of what else was offered) in a gradient.

    doubt    : per weight, how far rounding may have moved it
    residual : what is left unexplained, relative to the gradient
    condition: of the matrix of columns, each scaled to norm 1
    """

    weights: Tensor
    others: Tensor
    doubt: Tensor
    others_doubt: Tensor
    residual: float
    condition: float


def columns(cell: Cell, step: int, weights: Mapping[str, Tensor], dtype: torch.dtype, unit: str) -> Columns:
    """``dtype``: float64 for cells in float32, else that of the cell, so that the model rounds alike."""
    batch, share = problem.batch(cell, step), problem.weights(cell, step)
    ranks = batches.deal(cell.split, step)
    size, length = batch.mask.shape
    places: list[tuple[int, ...]]
    if unit == "micro-batch":
        places = [(r, k) for r, rank in enumerate(ranks) for k in range(len(rank))]
        tokens = torch.zeros(len(places), size, length, dtype=torch.float64)
        for i, (r, k) in enumerate(places):
            tokens[i, list(ranks[r][k])] = share[list(ranks[r][k])]
    elif unit == "sample":
        places = [(i,) for i in range(size)]
        tokens = torch.diag_embed(torch.ones(size, dtype=torch.float64))[:, :, None] * share
    else:
        places = [(i, t) for i in range(size) for t in range(length) if unit == "position" or bool(batch.mask[i, t])]
        typical = share[share > 0].mean()
        tokens = torch.diag((share + typical * ~batch.mask).flatten()).view(-1, size, length)
        tokens = tokens[[i * length + t for i, t in places]]
    right = torch.tensor([1.0 if bool((share * row).any()) else 0.0 for row in tokens.bool()], dtype=torch.float64)
    names = reference.trained(cell)
    if unit == "micro-batch" and dtype != torch.float64:  # the very shapes that the framework computes in
        micro = reference.micro_gradients(cell, step, weights, dtype)
        flat = [torch.cat([m[n].flatten() for n in names]) / len(micro) for rank in micro for m in rank]
        values = torch.stack(flat)
    else:
        values = _gradients(cell, step, weights, dtype, tokens.flatten(1))
    return Columns(unit, tuple(places), values, right, tokens)


@lru_cache(maxsize=16)
def _model(name: str, seed: int, dtype: torch.dtype) -> models.Task:
    model = models.exact(name, seed) if dtype == torch.float64 else models.build(name, seed).to(dtype)
    model.returns = "output"
    return model


def _gradients(cell: Cell, step: int, weights: Mapping[str, Tensor], dtype: torch.dtype, rows: Tensor) -> Tensor:
    """float64 [n, P]: the gradient of the token losses weighted with each row."""
    model = _model(cell.model, cell.seed, dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    trained = [parameters[name] for name in reference.trained(cell)]
    losses = _losses(cell, step, model, dtype).flatten()
    grads = torch.autograd.grad(losses, trained, rows.to(losses.dtype), is_grads_batched=True, allow_unused=True)
    empty = torch.zeros(len(rows), 0, dtype=torch.float64)
    pieces = [
        torch.zeros(len(rows), p.numel(), dtype=torch.float64) if g is None else g.flatten(1).double()
        for g, p in zip(grads, trained, strict=True)
    ]
    return torch.cat([empty, *pieces], 1)


def _losses(cell: Cell, step: int, model: models.Task, dtype: torch.dtype) -> Tensor:
    """[B, T]: from one forward of all samples, or of each micro-batch where a loss is declared to depend on what else is in it."""
    batch, raised = problem.batch(cell, step), reference.raised_in(cell, dtype)
    if not problem.by_micro_batch(cell.objective) or problem.has_term(cell.objective):
        batch = problem.half(batch, cell, dtype, raised)
        return problem.losses(cell.objective, model.output(batch, dtype), batch, raised)
    found: Tensor | None = None
    for rows, part in (part for rank in reference.parts_of(cell, step, model, dtype, raised) for part in rank):
        losses = problem.losses(cell.objective, model.output(part, dtype), part, raised)
        found = losses.new_zeros(batch.mask.shape) if found is None else found
        found = found.index_put((torch.tensor(rows)[:, None], torch.arange(losses.shape[1])), losses)
    assert found is not None  # a step has a micro-batch
    return found


def flatten(cell: Cell, tensors: Mapping[str, Tensor]) -> Tensor:
    """One vector, parameters in the model's order."""
    return torch.cat([tensors[n].flatten() for n in reference.trained(cell)])


def fit(gradient: Tensor, units: Tensor, others: Sequence[Tensor] = ()) -> Fit | None:
    """Least squares; None where there are too few numbers for that many weights.

    gradient : [P]; units : [n, P]; others : further columns, each [P]

    What the columns leave unexplained is rounding, and there is as much of it along the columns as elsewhere: the
    doubt of a weight is four standard errors, and what float32 itself cannot hold.
    """
    matrix = torch.cat([units, *(o[None] for o in others)]).T
    if matrix.shape[1] > matrix.shape[0] - 3:
        return None
    norms = matrix.norm(dim=0)
    live = norms > 1e-9 * norms.max()  # a unit without a gradient has no weight
    scaled = matrix[:, live] / norms[live]
    u, s, v = torch.linalg.svd(scaled, full_matrices=False)
    if float(s[-1]) < 1e-12 * float(s[0]):
        return None
    inverse = (v.T / s) @ u.T / norms[live][:, None]
    found, doubt = (torch.zeros(len(norms), dtype=torch.float64) for _ in range(2))
    found[live] = inverse @ gradient
    size = float(gradient.norm())
    residual = float((matrix @ found - gradient).norm()) / size if size else 0.0
    error = 4 * residual / (len(gradient) - int(live.sum())) ** 0.5 + SMALLEST
    doubt[live] = error * size * inverse.norm(dim=1)
    doubt[~live] = float("inf")
    n = len(units)
    return Fit(found[:n], found[n:], doubt[:n], doubt[n:], residual, float(s[0] / s[-1]))
