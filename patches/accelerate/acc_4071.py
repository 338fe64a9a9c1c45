"""skip_first_batches makes a loader that counts epochs from 0: a resumed pass has the order of the first one.

Fixed by https://github.com/huggingface/accelerate/pull/4071 (1.15.0). It shows since set_epoch reaches samplers behind
another batch sampler (https://github.com/huggingface/accelerate/pull/3556, 1.7.0): until then the sampler kept the epoch
that the user had set.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-4071",
    framework="accelerate",
    title="after skip_first_batches a pass is resumed in the order of the first epoch",
    affected=(("1.7.0", "1.15.0"),),
    trigger=({"sampler": ("epoch",), "checkpoint": ("reload",), "world_size": (1,)},),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/accelerate/pull/4071", "https://github.com/huggingface/accelerate/issues/2016"),
    cell="accelerate-mlp-W1-K2x4-sampler:epoch-checkpoint:reload",
    measured={
        "accelerate-mlp-W1-K2x4-sampler:epoch-checkpoint:reload [1.5.2]": 2.12e-07,
        "accelerate-mlp-W1-K2x4-sampler:epoch-checkpoint:reload [1.8.1]": 1.4,
        "accelerate-mlp-W1-K2x4-sampler:epoch-checkpoint:reload [1.15.0]": 2.12e-07,
    },
    details="Samples of the resumed epoch come twice or never. Call the skipping loader's set_epoch with the epoch.",
)
