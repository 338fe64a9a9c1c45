"""4.46.0 and 4.46.1 multiply the loss by the accumulation steps for heads that are not given the number of items.

https://github.com/huggingface/transformers/issues/34263: the logged loss is too large by that factor too.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS, SEVERAL

ADVISORY = Advisory(
    id="transformers-34263",
    framework="transformers",
    title="Loss and gradient times the accumulation steps for heads that are not given the number of items",
    affected=(("4.46.0", "4.46.2"),),
    trigger=(
        {**FACTS, "accepts_items": (False,), "K": SEVERAL},
        {**FACTS, "compute_loss": ("flagged", "override"), "K": SEVERAL},
    ),
    signature=("scaled", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/issues/34263",
        "https://github.com/huggingface/transformers/pull/34511",
    ),
    cell="transformers-bert.class-W1-K4",
    measured={
        "transformers-bert.class-W1-K4 [4.46.0]": 3.0,
        "transformers-bert.mlm-W1-K4 [4.46.1]": 2.8,
        "transformers-bert.class-W1-K4 [4.45.2]": 5.7e-07,
        "transformers-bert.class-W1-K4 [4.48.0]": 5.7e-07,
    },
    details="4.46.2 mends the logged loss alone: see transformers-35207.",
)
