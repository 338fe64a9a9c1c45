"""ZeRO-3 with the optimizer on the CPU drops the gradient of a parameter that the last micro-batch does not use.

The accumulated gradient goes to the optimizer's float32 buffer as each parameter is reduced in the last micro-batch
of a step; one that receives no gradient there keeps what was in the buffer. The stage-2 counterpart is
deepspeed-offload-unused. Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-8",
    framework="deepspeed",
    title="ZeRO-3 with optimizer offload drops the gradient of a parameter that the last micro-batch does not use",
    affected=(("0.15.4", None),),
    trigger=({"stage": (3,), "offload_optimizer": ("cpu",), "left_out_last": (True,)},),
    signature=("dropped", "stale", "unexplained"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/zero/stage3.py",),
    cell="deepspeed-mlp_unused-W1-K4-stage:3-offload_optimizer:cpu",
    measured={
        "deepspeed-mlp_unused-W1-K4-stage:3-offload_optimizer:cpu [0.18.9]": 1.0,
        "deepspeed-mlp_unused-W1-K4-stage:3-offload_optimizer:cpu [0.19.8]": 1.0,
        "deepspeed-mlp_unused-W1-K4-stage:3 [0.19.8]": 1.9e-07,
    },
    details="Concerns experts, adapters and branches that are switched. Right without offload. 0.15.1 refuses such a model.",
)
