"""Wrong weightings that are known by name, and factors that a user would recognise.

A weighting is the weight of every token in the loss of the whole step, as a framework that normalises in
that way would give it (so that a factor besides it, such as "never divided", can be told apart).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, isfinite, log10

import torch
from torch import Tensor
from truestep.fixtures import batches, problem
from truestep.fixtures.cell import Cell


def weightings(cell: Cell, step: int) -> Iterator[tuple[str, Tensor]]:
    """(words, float64 [B, T]); the cell's own objective is not among them."""
    mask = problem.batch(cell, step).mask
    ranks = batches.deal(cell.split, step)
    own = mask.sum(1, keepdim=True).double()  # trained tokens of every sample
    size = len(mask)
    micro, rank_total, samples, padded = (torch.zeros(size, 1, dtype=torch.float64) for _ in range(4))
    for rank in ranks:
        everyone = [row for rows in rank for row in rows]
        rank_total[everyone] = float(own[everyone].sum())
        for rows in rank:
            index = list(rows)
            micro[index], samples[index] = float(own[index].sum()), float(len(index))
            padded[index] = float(len(index) * (int(mask[index].any(0).nonzero().max()) + 1))
    world, window = len(ranks), len(ranks[0])
    parts, m = world * window, mask.double()
    objective = problem.weights(cell, step)
    every = (
        ("token mean over the global batch", m / m.sum()),
        ("every sample was averaged over its own tokens, then the samples (weight 1 / length)", m / (size * own)),
        ("a mean of means: every micro-batch was averaged over its own tokens, then the micro-batches", m / (parts * micro)),
        ("a mean of means: every rank was averaged over its own tokens, then the ranks", m / (world * rank_total)),
        ("a mean of means: every micro-batch was averaged over its samples, then the micro-batches", m / (parts * samples)),
        ("every micro-batch was averaged over all its positions, padding included", m / (parts * padded)),
        (
            "a mean of means: samples over their tokens, micro-batches over their samples, then the micro-batches",
            m / (parts * samples * own),
        ),
    )
    seen: list[Tensor] = [objective]
    for words, weights in every:
        if not any(_proportional(weights[mask], other[mask]) for other in seen):
            seen.append(weights)
            yield words, weights


def _proportional(a: Tensor, b: Tensor) -> bool:
    ratio = a / b
    return bool(ratio.max() - ratio.min() < 1e-9 * ratio.max())


def factors(cell: Cell, step: int) -> dict[str, float]:
    """Name -> factor by which a whole gradient is typically wrong in this cell."""
    mask = problem.batch(cell, step).mask
    k, w, n, size = cell.split.windows[step], cell.split.world_size, float(mask.sum()), len(mask)
    last = mask.flip(1).double().argmax(1)
    lengths = float((mask.shape[1] - last).sum())  # prompt and trained tokens
    some = {
        "K, the micro-batches of a step": float(k),
        "W, the world size": float(w),
        "K x W": float(k * w) if min(k, w) > 1 else 1.0,  # else it is one of the two
        "K squared": float(k * k),
        "65536, a loss scale": 65536.0,
        "the number of trained tokens": n,
        "the number of samples": float(size),
        "trained tokens per sample": n / size,
        "the trained tokens of a micro-batch": n / (k * w) if k * w > 1 else 1.0,
    }
    named = {**some, **{f"1 / ({name})": 1 / value for name, value in some.items()}}
    named["labels counted before they were shifted"] = n / (n + float(mask[:, 0].sum()))  # of a row that has no prompt one more
    named["padding counted as tokens"] = n / mask.numel()
    named["prompt counted as trained tokens"] = n / lengths
    return {name: value for name, value in named.items() if abs(value - 1) > 1e-9}


def names_of(cell: Cell, step: int, factor: float, tolerance: float) -> list[str]:
    return [name for name, value in factors(cell, step).items() if abs(factor / value - 1) <= max(tolerance, 1e-9)]


def number(value: float, doubt: float = 0.0) -> str:
    """4, 1/4, 65536, 0.75, 1.00001: as a person would write a factor that is known to ``doubt``."""
    if not isfinite(value):
        return str(value)
    size = max(abs(value), 1e-300)
    close = max(doubt, 1e-7 * size)
    whole = round(value)
    if whole and abs(value - whole) <= close:
        return str(whole)
    part = round(1 / value) if size < 0.75 and 1 / size < 1e9 else 0
    if part and abs(value - 1 / part) <= max(close, 1e-5 * size):
        return f"1/{part}" if part > 0 else f"-1/{-part}"
    # as many digits as are known, four at least where the value is not near a whole number
    digits = max(0, -floor(log10(max(3 * close, 1e-12))))
    return f"{value:.{min(digits, 8)}f}" if 0.1 < size < 100 and abs(value - 1) < 0.01 else f"{value:.4g}"
