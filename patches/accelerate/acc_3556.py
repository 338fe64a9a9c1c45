"""set_epoch of a prepared loader does not reach the sampler behind the sharding batch sampler of several ranks.

Fixed by https://github.com/huggingface/accelerate/pull/3556 (1.7.0).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-3556",
    framework="accelerate",
    title="with several ranks a sampler's set_epoch is never called: every pass has the order of the first",
    affected=(("1.0.0", "1.7.0"),),
    trigger=({"sampler": ("epoch",), "world_size": {"min": 2}, "dispatch_batches": ("unset",)},),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/accelerate/pull/3556",),
    cell="accelerate-mlp-W2-K2x4-sampler:epoch",
    measured={
        "accelerate-mlp-W2-K2x4-sampler:epoch [1.0.1]": 1.39,
        "accelerate-mlp-W2-K2x4-sampler:epoch [1.5.2]": 1.39,
        "accelerate-mlp-W2-K2x4-sampler:epoch [1.7.0]": 1.75e-07,
    },
)
