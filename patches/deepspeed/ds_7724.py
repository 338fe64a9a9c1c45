"""engine.backward(loss, scale_wrt_gas=False) divides by the accumulation steps all the same (0.18.3 only).

https://github.com/deepspeedai/DeepSpeed/pull/7724. The hook that came with direct calls of loss.backward() did not look at the flag.
accelerate passes it, and so transformers' Trainer depends on it.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="deepspeed-7724",
    framework="deepspeed",
    title="scale_wrt_gas=False is ignored: the gradient is divided by the accumulation steps",
    affected=(("0.18.3", "0.18.4"),),
    # with clipping the step itself is hidden but for the 1e-6 beside a norm that is too small by K; the norm reported is too small all the same
    trigger=({"backward": ("unscaled",), "accumulate": ("managed", "boundary_k"), "K": {"min": 2}},),
    signature=("scaled", "dropped", "unexplained", "clipped", "norm", "reading"),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/7724",),
    cell="deepspeed-mlp-W1-K4-backward:unscaled",
    measured={
        "deepspeed-mlp-W1-K4-backward:unscaled [0.18.2]": 1.7e-07,
        "deepspeed-mlp-W1-K4-backward:unscaled [0.18.3]": 0.75,
        "deepspeed-mlp-W1-K4-backward:unscaled [0.18.4]": 1.7e-07,
    },
    details="Every way to accumulate with K in the configuration, every ZeRO stage.",
)
