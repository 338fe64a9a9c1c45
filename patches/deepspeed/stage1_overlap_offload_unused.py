"""ZeRO-1 with optimizer offload and overlap_comm drops the gradient of a parameter that the last micro-batch does not use.

With ``overlap_comm: true`` stage 1 reduces in the hooks of the last backward, as stage 2 does, so a parameter that has no
gradient there never reaches the optimizer. Without it stage 1 reduces at the end of the window and is right. The cure of
deepspeed-offload-unused does not reach this path. Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-11",
    framework="deepspeed",
    title="ZeRO-1 with optimizer offload and overlap_comm drops a parameter that the last micro-batch does not use",
    affected=(("0.15.1", None),),
    trigger=({"stage": (1,), "offload_optimizer": ("cpu",), "overlap_comm": ("true",), "left_out_last": (True,)},),
    signature=("dropped", "stale", "unexplained"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/zero/stage_1_and_2.py",),
    cell="deepspeed-mlp_unused-W1-K4-stage:1-offload_optimizer:cpu-overlap_comm:true",
    measured={
        "deepspeed-mlp_unused-W1-K4x3-stage:1-offload_optimizer:cpu-overlap_comm:true [0.15.1]": 1.0,
        "deepspeed-mlp_unused-W1-K4x3-stage:1-offload_optimizer:cpu-overlap_comm:true [0.19.8]": 1.0,
    },
    details="0.15.1 is the oldest release that was run. Right without overlap_comm and without offload.",
)
