"""The documented loop for samples of variable size steps after every micro-batch on DeepSpeed.

Since https://github.com/huggingface/accelerate/pull/3630 (1.8.0) accelerator.backward ends DeepSpeed's window whenever
``sync_gradients`` is true, and without accumulate() it always is. The recipe of
https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation does not use accumulate(). On several ranks
DeepSpeed refuses the recipe's no_sync, loudly.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-recipe-on-deepspeed",
    framework="accelerate",
    title="on DeepSpeed the documented loop for samples of variable size takes one optimizer step per micro-batch",
    affected=(("1.8.0", None),),
    trigger=({"engine": ("deepspeed",), "via": ("no_sync",), "K": {"min": 2}},),
    signature=("unexplained", "dropped", "scaled", "re-weighted", "stale", "clipped", "loss", "moments", "update", "norm", "lr"),
    links=(
        "https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation#skeleton-code",
        "https://github.com/huggingface/accelerate/pull/3630",
    ),
    cell="accelerate-mlp-W1-K4x2-engine:deepspeed-via:no_sync",
    measured={
        "accelerate-mlp-W1-K4x2-engine:deepspeed-via:no_sync [1.7.0]": 1.67e-07,
        "accelerate-mlp-W1-K4x2-engine:deepspeed-via:no_sync [1.8.1]": 1.12,
        "accelerate-mlp-W1-K4x2-engine:deepspeed-via:no_sync [1.15.0]": 1.12,
    },
    details="Use accelerator.accumulate(model), and count the items of a window before it.",
)
