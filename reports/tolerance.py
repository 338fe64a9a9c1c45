"""What the margin between measured noise and bound must be: plain PyTorch runs of the same step, permuted and re-split.

The bound of a parameter is ``compare.MARGIN`` times the noise measured in the cell's own split. Here the same
step is taken in other splits, with its samples in another order and at the weights of a later step, and the
noise found there is divided by the noise that the bound was made from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from truestep.fixtures import models
from truestep.fixtures.cell import Cell
from truestep.reports import compare
from truestep.reports.verdict import SENSITIVITY


@dataclass(frozen=True)
class Study:
    """ratios : noise of another run of the same step / noise that the bound rests on, one for each parameter, sorted
    wide   : bounds wider than a third of what must be caught, of all
    """

    cells: int
    ratios: tuple[float, ...]
    wide: tuple[int, int]

    def quantile(self, share: float) -> float:
        return self.ratios[min(len(self.ratios) - 1, int(share * len(self.ratios)))]

    def lines(self) -> list[str]:
        shown = ", ".join(f"{100 * q:g} %: {self.quantile(q):.2f}" for q in (0.5, 0.9, 0.99, 0.999))
        return [
            f"**Tolerance**: in {self.cells} float32 cells, {len(self.ratios)} gradients of parameters were taken again in other splits, orders"
            f" and at other weights. Their noise, as a multiple of what the bound was made from: {shown}, largest {self.ratios[-1]:.2f};"
            f" the bound allows {compare.MARGIN:g} at first, and what these runs show before anything is accused."
            f" {self.wide[0]} of {self.wide[1]} bounds are too wide to tell.",
            "",
        ]


def study(cells: Iterable[Cell]) -> Study:
    """``cells``: any; what differs from float32 is set back to it."""
    ratios: list[float] = []
    count = wide = bounds = 0
    for cell in cells:
        bare = compare.cell_without_framework(cell.but(dtype="fp32") if cell.knob("dtype") != "fp32" else cell)
        start = models.initial(bare.model, bare.seed, torch.float32)
        made = {n: b / compare.MARGIN for n, b in compare.bounds(compare.noise_at(bare, 0, start), compare.truth(bare, 0, start).grads).items()}
        later = models.initial(bare.model, bare.seed + 100, torch.float32)
        other = Cell(**{**vars(bare), "batch": "shuffled" if bare.batch == "ragged" else bare.batch})
        runs = [compare.noise_at(c, 0, start) for c in (other, *compare.resplit(bare))]
        runs.append(compare.noise_at(bare, 0, {n: (start[n] + later[n]).float().double() / 2 for n in start}))
        for run in runs:
            ratios += [run[n] / made[n] for n in made if n != compare.WHOLE and n in run]
        limit = SENSITIVITY["fp32"] / 3
        wide += sum(b * compare.MARGIN > limit for b in made.values())
        bounds += len(made)
        count += 1
    return Study(count, tuple(sorted(ratios)), (wide, bounds))
