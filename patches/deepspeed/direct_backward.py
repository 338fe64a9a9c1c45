"""loss.backward() divides by the accumulation steps once for every output of forward that the gradient passes through.

What https://github.com/deepspeedai/DeepSpeed/pull/8245 mended for engine.backward(loss) is as it was for the direct call, which came
with https://github.com/deepspeedai/DeepSpeed/pull/7665. Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-74",
    framework="deepspeed",
    title="loss.backward() is divided by the accumulation steps once for every output of forward that it passes through",
    affected=(("0.18.3", None),),
    trigger=(
        {
            "returns": ("both",),
            "backward": ("torch",),
            "accumulate": ("managed", "boundary_k"),
            "K": {"min": 2},
            "stage": (1, 2),
        },
    ),
    signature=("scaled", "norm", "clipped", "unexplained"),  # clipped: the 1e-6 beside a norm that is too small by K
    links=(
        "https://github.com/deepspeedai/DeepSpeed/pull/7665",
        "https://github.com/deepspeedai/DeepSpeed/pull/8245",
    ),
    cell="deepspeed-mlp-W1-K4-stage:1-backward:torch-returns:both",
    measured={
        "deepspeed-mlp-W1-K4-stage:1-backward:torch-returns:both [0.18.3]": 0.75,
        "deepspeed-mlp-W1-K4-stage:1-backward:torch-returns:both [0.19.5]": 0.75,
        "deepspeed-mlp-W1-K4-stage:1-backward:torch-returns:both [0.19.6]": 0.75,
        "deepspeed-mlp-W1-K4-stage:1-backward:torch-returns:both [0.19.8]": 0.75,
        "deepspeed-mlp-W1-K4-stage:2-backward:torch-returns:both [0.19.8]": 0.75,
        "deepspeed-mlp-W1-K4-stage:3-backward:torch-returns:both [0.19.8]": 1.3e-07,
        "deepspeed-mlp-W1-K4-stage:1-backward:torch [0.19.8]": 1.3e-07,
    },
    details=(
        "A model of transformers that is given labels returns loss and logits, so that loss.backward() gives it 1/K of the right "
        "gradient. Call engine.backward(loss), from 0.19.6 on, or let forward return the logits alone. Stage 0 refuses the direct "
        "call, ZeRO-3 hands out copies of the outputs and is right."
    ),
)
