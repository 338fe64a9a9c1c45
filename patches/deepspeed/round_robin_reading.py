"""With round_robin_gradients and several ranks the reading APIs return other parameters' values.

``safe_get_full_fp32_param`` and its siblings find a parameter's share of the flat buffer by the order of the
parameters, which round_robin_gradients has changed. With SGD in float32 the step itself, seen from the model's weights, is right.
What rests on the same mapping (universal checkpoints) was not looked at. Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-2",
    framework="deepspeed",
    title="with round_robin_gradients, safe_get_full_fp32_param returns values of other parameters",
    affected=(("0.14.5", None),),
    trigger=({"stage": (1, 2), "round_robin_gradients": ("true",), "world_size": {"min": 2}},),
    signature=("reading", "unexplained"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/utils/tensor_fragment.py",),
    cell="deepspeed-mlp-W2-K2-stage:1-round_robin_gradients:true",
    measured={
        "deepspeed-mlp-W2-K2-stage:1-round_robin_gradients:true [0.14.5]": 1.55,
        "deepspeed-mlp-W2-K2-stage:1-round_robin_gradients:true [0.19.8]": 1.55,
    },
    details="Seen from 0.14.5 to 0.19.8 (0.18.7 to 0.18.9 refuse two ranks on a CPU). One rank is right.",
)
