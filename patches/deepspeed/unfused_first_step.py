"""bf16 at stage 0: the optimizer has taken a step before training begins.

``FP16_UnfusedOptimizer``, which bf16 at stage 0 is given from 0.17.6 on, creates the optimizer's state by a step with
zero gradients. Adam counts it: the first real step is corrected for bias as the second, and weight decay is applied
once more. The ZeRO stages were rid of the same step by https://github.com/deepspeedai/DeepSpeed/pull/5104. Not reported for this wrapper as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

STAGE_0 = Advisory(
    id="truestep-2026-4",
    framework="deepspeed",
    title="bf16 at stage 0: Adam's bias correction is one step ahead and weight decay is applied once too often",
    affected=(("0.17.6", None),),
    trigger=({"stage": (0,), "dtype": ("bf16",), "optimizer": ("adam",)},),
    signature=("update", "initial", "norm", "dropped", "scaled"),
    links=(
        "https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/fp16/unfused_optimizer.py",
        "https://github.com/deepspeedai/DeepSpeed/pull/5104",
    ),
    cell="deepspeed-mlp-W1-K2x3-dtype:bf16-optimizer:adam",
    measured={
        "deepspeed-mlp-W1-K2x3-dtype:bf16-optimizer:adam [0.17.5]": 1e-07,
        "deepspeed-mlp-W1-K2x3-dtype:bf16-optimizer:adam [0.19.8]": 0.0659,
    },
    details="The figure is the error of the updated weights. SGD is not affected.",
)

STAGE_1 = Advisory(
    id="truestep-2026-10",
    framework="deepspeed",
    title="bf16 at stage 1 with fp32 accumulation: the optimizer has taken a step before training begins",
    affected=(("0.17.6", "0.18.5"),),
    trigger=(
        {
            "stage": (1,),
            "dtype": ("bf16",),
            "grad_accum_dtype": ("fp32",),
            "offload_optimizer": ("none",),
            "optimizer": ("adam",),
        },
    ),
    signature=("update", "initial"),
    links=STAGE_0.links,
    cell="deepspeed-mlp-W1-K2x3-stage:1-dtype:bf16-grad_accum_dtype:fp32-optimizer:adam",
    measured={
        "deepspeed-mlp-W1-K2x3-stage:1-dtype:bf16-grad_accum_dtype:fp32-optimizer:adam, initial weights [0.17.6]": 0.000977
    },
    details="The same wrapper in another place. The figure is how far the weights have moved before any gradient was computed.",
)

ADVISORY = (STAGE_0, STAGE_1)
