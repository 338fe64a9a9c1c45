"""Before 4.46 the loss of an optimizer step was the mean of the micro-batches' means, whatever they counted.

https://github.com/huggingface/transformers/pull/34191 and pull/34198 count the items of the whole step instead.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import UNLIKE

ADVISORY = Advisory(
    id="transformers-34191",
    framework="transformers",
    title="Gradient accumulation is a mean of means: a token weighs more in a micro-batch that has few",
    affected=(("4.45.2", "4.46.0"),),
    trigger=UNLIKE,
    signature=("re-weighted", "scaled", "loss", "unexplained"),
    links=(
        "https://github.com/huggingface/transformers/pull/34191",
        "https://github.com/huggingface/transformers/pull/34198",
        "https://huggingface.co/blog/gradient_accumulation",
    ),
    cell="transformers-llama.lm-W1-K4",
    measured={
        "transformers-llama.lm-W1-K4-batch:prompted [4.45.2]": 0.12,
        "transformers-bert.mlm-W1-K4 [4.45.2]": 0.066,
        "transformers-t5.seq2seq-W1-K4 [4.45.2]": 0.14,
        "transformers-llama.lm-W1-K4-batch:prompted [4.46.0]": 4.9e-07,
    },
    details="Right where all micro-batches and ranks count the same number of items. Earlier releases were not run.",
)
