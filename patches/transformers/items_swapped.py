"""4.47.0 and 4.48.0 pass the number of items on for just those models that do not take it.

https://github.com/huggingface/transformers/pull/35651: the two branches of a condition stood the wrong way round.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import BY_MODEL, SEVERAL

ADVISORY = Advisory(
    id="transformers-35651",
    framework="transformers",
    title="The number of items is withheld from models that take it: a mean of means, times the accumulation steps",
    affected=(("4.47.0", "4.47.1"), ("4.48.0", "4.48.1")),
    trigger=(
        {**BY_MODEL, "accepts_items": (True,), "K": SEVERAL, "task": {"not": ("span",)}},
        {**BY_MODEL, "accepts_items": (True,), "world_size": SEVERAL, "averages": (True,), "task": {"not": ("span",)}},
    ),
    signature=("re-weighted", "scaled", "loss", "norm", "clipped", "unexplained"),
    links=("https://github.com/huggingface/transformers/pull/35651",),
    cell="transformers-llama.lm-W1-K4-batch:prompted",
    measured={
        "transformers-llama.lm-W1-K4-batch:prompted [4.47.0]": 2.9,
        "transformers-llama.lm-W1-K4-batch:prompted [4.47.1]": 4.9e-07,
        "transformers-llama.lm-W1-K4-batch:prompted [4.48.0]": 2.9,
        "transformers-llama.lm-W1-K4-batch:prompted [4.48.1]": 4.9e-07,
    },
)
