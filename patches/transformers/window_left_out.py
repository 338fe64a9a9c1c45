"""No optimizer step is taken for the last, shorter window of an epoch: its samples are lost, or spill into the next epoch.

https://github.com/huggingface/transformers/pull/37923 counts the steps of an epoch anew.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

ADVISORY = Advisory(
    id="transformers-37923",
    framework="transformers",
    title="The last, shorter window of an epoch takes no optimizer step",
    affected=(("4.45.2", "4.52.1"),),
    trigger=({**FACTS, "varying": (True,)},),
    signature=("dropped", "unexplained", "re-weighted", "scaled", "loss", "lr", "update", "norm"),
    links=(
        "https://github.com/huggingface/transformers/pull/37923",
        "https://github.com/huggingface/transformers/issues/37777",
    ),
    cell="transformers-llama.lm-W1-K4.2b4-batch:prompted",
    measured={
        "transformers-llama.lm-W1-K4.2b4-batch:prompted [4.46.2]": 0.5,
        "transformers-llama.lm-W1-K4.2b4-batch:prompted [4.51.3]": 0.5,
        "transformers-llama.lm-W1-K4.2b4-batch:prompted [4.52.1]": 4.9e-07,
    },
    details="Earlier releases were not run.",
)
