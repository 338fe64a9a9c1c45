"""On DeepSpeed the last, shorter window of a pass takes no optimizer step: its gradients wait for the next pass.

Until https://github.com/huggingface/accelerate/pull/3630 (1.8.0) the engine counted micro-batches by itself and
accelerate did not tell it where a window ends.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-3630",
    framework="accelerate",
    title="on DeepSpeed a window that is cut short by the end of the data is not stepped",
    affected=(("1.4.0", "1.8.0"),),
    trigger=({"engine": ("deepspeed",), "varying": ("true",), "via": ("accumulate", "no_sync")},),
    signature=("stale", "dropped", "scaled", "unexplained", "moments", "update", "loss", "norm", "lr"),
    links=("https://github.com/huggingface/accelerate/pull/3630",),
    cell="accelerate-mlp-W1-K4.4.2b1-engine:deepspeed-stage:1",
    measured={
        "accelerate-mlp-W1-K4.4.2b1-engine:deepspeed-stage:1 [1.4.0]": 1.36,
        "accelerate-mlp-W1-K4.4.2b1-engine:deepspeed-stage:1 [1.7.0]": 1.36,
        "accelerate-mlp-W1-K4.4.2b1-engine:deepspeed-stage:1 [1.8.1]": 1.63e-07,
    },
)
