"""safe_get_full_grad returns only part of the accumulated gradient with BF16_Optimizer.

Stage 1 in bf16 with fp32 accumulation: the reading is that of one micro-batch, while the step is right.
Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-5",
    framework="deepspeed",
    title="safe_get_full_grad misses accumulated micro-batches in bf16 with fp32 accumulation at stage 1",
    affected=(("0", "0.19.8"),),
    trigger=(
        {"read": ("grad",), "stage": (1,), "dtype": ("bf16",), "grad_accum_dtype": ("fp32",), "K": {"min": 2}},
    ),
    signature=("reading", "norm"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/utils/tensor_fragment.py",),
    cell="deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad",
    measured={
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.15.1]": 0.894,
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.18.9]": 0.894,
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.19.8]": 0.0012,
    },
    details="A finding about the reading, not about the step. One micro-batch per step reads right.",
)
