"""The loss of an evaluation is a mean over samples of the means of their batches: it depends on the evaluation's batch size.

Every batch's loss is the mean over its own tokens; each is repeated for the samples of its batch and all are averaged. Where
batches hold unlike numbers of tokens that is not the loss of the data set.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

ADVISORY = Advisory(
    id="truestep-2026-52",
    framework="transformers",
    title="eval_loss depends on the batch size of the evaluation: a mean over batches of their means",
    affected=(("4.45.2", None),),
    trigger=({**FACTS, "evaluate": (1, 3)},),
    signature=("reading",),
    links=("https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py",),
    cell="transformers-llama.lm-W1-K4-evaluate:1",
    measured={"transformers-llama.lm-W1-K4-evaluate:1 [5.23.0]": 0.0153},
    details="The step itself is right. With one batch for all samples the figure is right.",
)
