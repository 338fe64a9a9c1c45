"""safe_get_full_grad returns only part of the accumulated gradient with BF16_Optimizer.

The reading is that of the last micro-batch on this rank, while the step is right.
Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

STAGE_1 = Advisory(
    id="truestep-2026-5",
    framework="deepspeed",
    title="safe_get_full_grad misses accumulated micro-batches in bf16 with fp32 accumulation at stage 1",
    affected=(("0.14.5", "0.19.8"),),
    trigger=(
        {"read": ("grad",), "stage": (1,), "dtype": ("bf16",), "grad_accum_dtype": ("fp32",), "K": {"min": 2}},
        {"read": ("grad",), "stage": (1,), "dtype": ("bf16",), "grad_accum_dtype": ("fp32",), "world_size": {"min": 2}},
    ),
    signature=("reading", "norm"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/utils/tensor_fragment.py",),
    cell="deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad",
    measured={
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.15.1]": 0.894,
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.18.9]": 0.894,
        "deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.19.8]": 0.0012,
    },
    details="A finding about the reading, not about the step. One micro-batch on one rank reads right.",
)

STAGE_0 = Advisory(
    id="truestep-2026-9",
    framework="deepspeed",
    title="safe_get_full_grad misses accumulated micro-batches and other ranks in bf16 at stage 0",
    affected=(("0.14.5", "0.17.6"),),
    trigger=(
        {"read": ("grad",), "stage": (0,), "dtype": ("bf16",), "K": {"min": 2}},
        {"read": ("grad",), "stage": (0,), "dtype": ("bf16",), "world_size": {"min": 2}},
    ),
    signature=("reading",),
    links=STAGE_1.links,
    cell="deepspeed-mlp-W1-K2-dtype:bf16-read:grad",
    measured={
        "deepspeed-mlp-W1-K2-dtype:bf16-read:grad [0.15.1]": 1.29,
        "deepspeed-mlp-W2-K1-dtype:bf16-grad_accum_dtype:fp32-read:grad [0.15.1]": 2.88,
        "deepspeed-mlp-W1-K2-dtype:bf16-read:grad [0.19.0]": 0.0,
    },
    details="The same mistake where bf16 at stage 0 is run by BF16_Optimizer. The step is right.",
)

ADVISORY = (STAGE_1, STAGE_0)
