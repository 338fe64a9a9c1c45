"""The learning rate that is logged with a step is that of the next step: it is read after the scheduler has moved on.

https://github.com/huggingface/transformers/issues/35942, mended by https://github.com/huggingface/transformers/pull/36973.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

ADVISORY = Advisory(
    id="transformers-36973",
    framework="transformers",
    title="The logged learning rate is that of the next optimizer step",
    affected=(("4.45.2", "4.51.0"),),
    trigger=({**FACTS, "schedule": {"not": ("constant",)}},),
    signature=("reading",),
    links=(
        "https://github.com/huggingface/transformers/pull/36973",
        "https://github.com/huggingface/transformers/issues/35942",
    ),
    cell="transformers-llama.lm-W1-K4x3-schedule:linear-batch:prompted",
    measured={
        "transformers-llama.lm-W1-K1x3-schedule:linear-batch:prompted [4.46.0]": 0.333,
        "transformers-llama.lm-W2-K2x3-schedule:linear-batch:prompted [4.54.0]": 0.0,
    },
    details="The step itself is right. Earlier releases were not run.",
)
