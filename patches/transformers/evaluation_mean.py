"""The loss of an evaluation is a mean over samples of the means of their batches: it depends on the evaluation's batch size.

Every batch's loss is the mean over its own tokens; each is repeated for the samples of its batch and all are averaged. Where
batches hold unlike numbers of tokens that is not the loss of the data set.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

_BATCHES = {**FACTS, "evaluate": (1, 3)}
_SOURCE = "https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py"

ADVISORY = (
    Advisory(
        id="truestep-2026-52",
        framework="transformers",
        title="eval_loss depends on the batch size of the evaluation: a mean over batches of their means",
        affected=(("4.45.2", None),),
        trigger=(
            {**_BATCHES, "task": ("lm", "tokens"), "batch": {"not": ("equal",)}},
            {**_BATCHES, "task": ("mlm", "seq2seq")},
        ),
        signature=("reading",),
        links=(_SOURCE,),
        cell="transformers-llama.lm-W1-K4-evaluate:1",
        measured={
            "transformers-llama.lm-W1-K1-evaluate:1 [4.45.2]": 0.0153,
            "transformers-llama.lm-W1-K1-evaluate:1 [5.10.4]": 0.0153,
            "transformers-llama.lm-W1-K4-evaluate:1 [5.23.0]": 0.0153,
            "transformers-bert.mlm-W1-K1-evaluate:1 [5.23.0]": 0.0434,
            "transformers-t5.seq2seq-W1-K1-evaluate:1 [5.23.0]": 0.00249,
            "transformers-bert.class-W1-K1-evaluate:1 [5.23.0]": 0.0,
        },
        details="The step itself is right. With one batch for all samples the figure is right.",
    ),
    Advisory(
        id="truestep-2026-53",
        framework="transformers",
        title="eval_loss on several ranks: samples that only fill up the last batch weigh in",
        affected=(("4.45.2", None),),
        trigger=({**FACTS, "evaluate": (3,), "world_size": {"min": 2}},),
        signature=("reading",),
        links=(_SOURCE,),
        cell="transformers-llama.lm-W2-K1-batch:equal-evaluate:3",
        measured={
            "transformers-llama.lm-W2-K1-batch:equal-evaluate:3 [4.45.2]": 0.00594,
            "transformers-llama.lm-W2-K1-batch:equal-evaluate:3 [5.10.4]": 0.00594,
            "transformers-llama.lm-W1-K1-batch:equal-evaluate:3 [5.23.0]": 5.8e-08,
            "transformers-llama.lm-W2-K1-batch:equal-evaluate:1 [5.23.0]": 0.0,
            "transformers-llama.lm-W2-K1-batch:equal-evaluate:3 [5.23.0]": 0.00594,
        },
        details=(
            "accelerate fills the last batches of the ranks up with the first samples again. The mean of such a batch is taken with "
            "them, and only its copies, one per sample, are cut to the number of samples that there are. Right where the batches of "
            "all ranks come out even."
        ),
    ),
)
