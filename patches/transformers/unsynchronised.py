"""4.46.2 synchronises the ranks in every micro-batch but the last one, the other way round than it should.

What DistributedDataParallel has reduced before stays, and the gradient of the last micro-batch is the rank's own: without
accumulation nothing is ever reduced, and the ranks drift apart. 4.46.3 (https://github.com/huggingface/transformers/releases/tag/v4.46.3)
has the condition the right way round.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS, SEVERAL

ADVISORY = Advisory(
    id="transformers-4.46.2-no-sync",
    framework="transformers",
    title="DDP does not reduce the gradient of the last micro-batch: without accumulation every rank trains alone",
    affected=(("4.46.2", "4.46.3"),),
    trigger=({**FACTS, "world_size": SEVERAL},),
    signature=("unreduced", "ranks", "loss", "unexplained", "norm"),
    links=(
        "https://github.com/huggingface/transformers/blob/v4.46.2/src/transformers/trainer.py#L2474",
        "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/trainer.py#L2474",
    ),
    cell="transformers-bert.class-W2-K1",
    measured={
        "transformers-bert.class-W2-K1 [4.46.2]": 4.54,
        "transformers-llama.lm-W2-K1-batch:prompted [4.46.2]": 1.25,
        "transformers-llama.lm-W2-K2-batch:prompted [4.46.2]": 0.758,
    },
)
