"""The last window of an epoch is divided by the configured accumulation steps, not by its own length.

https://github.com/huggingface/transformers/issues/38837; since 4.55.0 the Trainer counts the micro-batches that there are.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

_SHORT = {**FACTS, "varying": (True,)}

ADVISORY = Advisory(
    id="transformers-38837",
    framework="transformers",
    title="The last, shorter window of an epoch is divided by all accumulation steps: too small",
    affected=(("4.52.1", "4.55.0"),),
    trigger=(
        {**_SHORT, "accepts_items": (False,)},
        {**_SHORT, "task": ("span",)},
        {**_SHORT, "compute_loss": ("flagged",)},
    ),
    signature=("scaled", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/issues/38837",
        "https://github.com/huggingface/transformers/pull/38872",
    ),
    cell="transformers-bert.class-W1-K4.4.2b2",
    measured={
        "transformers-bert.class-W1-K4.4.2b2 [4.53.3]": 0.5,
        "transformers-bert.class-W1-K4.4.2b2 [4.54.0]": 0.5,
        "transformers-bert.class-W1-K4.4.2b2 [4.55.0]": 3.4e-07,
    },
    details="Models that are given the number of items are right.",
)
