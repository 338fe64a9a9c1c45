"""bf16 without ZeRO partitioning: an optimizer wrapper meant for fp16 takes steps with old gradients, or none.

https://github.com/deepspeedai/DeepSpeed/issues/7837 (the report), https://github.com/deepspeedai/DeepSpeed/pull/7839 (the
fix, in 0.18.6) and https://github.com/deepspeedai/DeepSpeed/pull/7786 (checkpoints). From 0.17.6 on, bf16 at stage 0 (and at stage 1 with fp32 accumulation,
up to 0.18.4) is given ``FP16_UnfusedOptimizer`` with a loss scale of 65536, as fp16 is.

- At stage 0 the gradients of a step are not cleared: every step has those of all earlier steps in it.
- From 0.18.3 on the loss is no longer scaled, but the gradients are still divided by the scale: the update is
  1/65536 of what it should be, which in bf16 weights is nothing at all.

Until 0.18.2 the reported gradient norm is 65536 times the true one.
"""

from __future__ import annotations

from ..advisory import Advisory

_FIX = "https://github.com/deepspeedai/DeepSpeed/pull/7839"
_LINK = "https://github.com/deepspeedai/DeepSpeed/blob/v0.18.3/deepspeed/runtime/fp16/unfused_optimizer.py"

STALE = Advisory(
    id="deepspeed-bf16-stale",
    framework="deepspeed",
    title="bf16 at stage 0 keeps the gradients of all earlier steps",
    affected=(("0.17.6", "0.18.6"),),
    trigger=({"stage": (0,), "dtype": ("bf16",), "steps": {"min": 2}},),
    signature=("stale", "unexplained", "norm"),
    links=(_FIX, _LINK),
    cell="deepspeed-mlp-W1-K1x3-dtype:bf16",
    measured={
        # W = 1, one linear layer: error of the fp32 master's update in the second and third step.
        "length of the second update over that of the gradient [0.18.2]": 1.32,
        "length of the third update over that of the gradient [0.18.2]": 2.13,
        "deepspeed-mlp-W1-K4x3-dtype:bf16 [0.17.5]": 0.006,
        "deepspeed-mlp-W1-K4x3-dtype:bf16 [0.17.6]": 1.0,
        "deepspeed-mlp-W1-K4x3-dtype:bf16 [0.18.9]": 0.006,
    },
    details="The first step is right. Seen with torch.optim.SGD; from 0.18.3 on the update is also divided by 65536.",
)

DIVIDED = Advisory(
    id="deepspeed-bf16-divided",
    framework="deepspeed",
    title="bf16 at stage 0 divides the update by a loss scale of 65536 that was never applied",
    affected=(("0.18.3", "0.18.6"),),
    trigger=({"stage": (0,), "dtype": ("bf16",)},),
    signature=("scaled", "dropped", "norm", "clipped"),
    links=(_FIX, _LINK),
    cell="deepspeed-mlp-W1-K1-dtype:bf16",
    measured={
        "deepspeed-mlp-W1-K1x3-dtype:bf16 [0.18.3]": 1.0,
        "deepspeed-mlp-W1-K4x3-dtype:bf16 [0.18.5]": 1.0,
        "deepspeed-mlp-W1-K4x3-dtype:bf16 [0.18.9]": 0.006,
    },
    details="The weights of the model stay where they are. The reported norm is right, so logs look healthy.",
)

DIVIDED_STAGE_1 = Advisory(
    id="deepspeed-bf16-divided-stage1",
    framework="deepspeed",
    title="bf16 at stage 1 with fp32 accumulation divides the update by a loss scale that was never applied",
    affected=(("0.18.3", "0.18.5"),),
    trigger=({"stage": (1,), "dtype": ("bf16",), "grad_accum_dtype": ("fp32",), "offload_optimizer": ("none",)},),
    signature=("scaled", "dropped", "clipped"),
    links=(_FIX, _LINK),
    cell="deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32",
    measured={
        "deepspeed-mlp-W1-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.2]": 0.006,
        "deepspeed-mlp-W1-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.3]": 1.0,
        "deepspeed-mlp-W1-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.4]": 1.0,
        "deepspeed-mlp-W1-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.5]": 0.01,
    },
    details="The update is 1/65536 of what it should be; the reported norm is right.",
)

CHECKPOINT = Advisory(
    id="deepspeed-7786",
    framework="deepspeed",
    title="bf16 at stage 0: a checkpoint restores neither the optimizer's state nor its master weights",
    affected=(("0.17.6", "0.18.5"),),
    trigger=({"stage": (0,), "dtype": ("bf16",), "checkpoint": ("reload",)},),
    signature=("reload", "stale", "moments", "update"),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/7786",),
    cell="deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload",
    measured={
        # how far what the second step started from lay from what the first had left
        "deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload [0.17.5]": 0.0,
        "deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload [0.18.2]": 1.989,
        "deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload [0.18.4]": 1.739,
        "deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload [0.18.5]": 0.0,
    },
    details="On 0.17.6 saving fails loudly. Seen on 0.18.2 and 0.18.4; 0.17.5 and 0.18.5 restore both.",
)

ADVISORY = (STALE, DIVIDED, DIVIDED_STAGE_1, CHECKPOINT)
