"""4.46.2 to 4.47.1 do not divide by the accumulation steps for heads that are not given the number of items.

https://github.com/huggingface/transformers/pull/35207. In 4.46.2 and 4.46.3 the logged loss is divided and looks right.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS, SEVERAL

ADVISORY = Advisory(
    id="transformers-35207",
    framework="transformers",
    title="Gradient times the accumulation steps for heads that are not given the number of items (the log may look right)",
    affected=(("4.46.2", "4.48.0"),),
    trigger=(
        {**FACTS, "accepts_items": (False,), "K": SEVERAL},
        {**FACTS, "compute_loss": ("flagged", "override"), "K": SEVERAL},
    ),
    signature=("scaled", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/pull/35207",
        "https://github.com/huggingface/transformers/pull/35438",
    ),
    cell="transformers-bert.class-W1-K4",
    measured={
        "transformers-bert.class-W1-K4 [4.46.2]": 3.0,
        "transformers-bert.class-W1-K4 [4.47.1]": 3.0,
        "transformers-gpt2.lm-W1-K4-batch:prompted [4.46.3]": 3.1,
        "transformers-bert.class-W1-K4 [4.48.0]": 5.7e-07,
    },
    details="Also for a Trainer that says model_accepts_loss_kwargs = False. Compare gradients, not logs.",
)
