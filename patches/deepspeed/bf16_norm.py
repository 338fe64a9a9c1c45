"""bf16 without ZeRO's own optimizer: the reported gradient norm is 65536 times the true one.

From 0.17.6 to 0.18.2 ``FP16_UnfusedOptimizer`` reports the norm before it takes the loss scale out again.
Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-6",
    framework="deepspeed",
    title="the gradient norm reported in bf16 is 65536 times the true one",
    affected=(("0.17.6", "0.18.3"),),
    trigger=(
        {"stage": (0,), "dtype": ("bf16",)},
        {"stage": (1,), "dtype": ("bf16",), "grad_accum_dtype": ("fp32",), "offload_optimizer": ("none",)},
    ),
    signature=("norm", "reading"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.18.2/deepspeed/runtime/fp16/unfused_optimizer.py",),
    cell="deepspeed-mlp-W1-K2x3-dtype:bf16",
    measured={"deepspeed-mlp-W1-K2x3-dtype:bf16 [0.17.6]": 65535.0, "deepspeed-mlp-W1-K2x3-dtype:bf16 [0.17.5]": 0.001},
    details="The step itself is right (but see deepspeed-bf16-stale for the steps after the first).",
)
