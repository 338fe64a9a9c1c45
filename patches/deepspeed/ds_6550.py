"""ZeRO-1 with the optimizer on the CPU adds an old gradient when the windows have different lengths.

https://github.com/deepspeedai/DeepSpeed/pull/6550 brought it, together with #7967. A step of a single
micro-batch leaves its gradient in the accumulator on the CPU; the next, longer step adds it again. Gone since
0.16.5, where stage 1 no longer counts the micro-batches that it does not reduce.
The cure of #7967 empties the accumulator at the end of a step and so covers this one.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="deepspeed-6550",
    framework="deepspeed",
    title="ZeRO-1 with optimizer offload adds the gradient of an earlier step when steps differ in length",
    affected=(("0.15.2", "0.16.5"),),
    trigger=(
        {
            "stage": (1,),
            "offload_optimizer": ("cpu",),
            "K": {"min": 2},
            # The shortest step that a longer one follows.
            "shortest": {"max": 1},
            "accumulate": ("boundary_k", "managed"),
        },
    ),
    signature=("stale",),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/6550",),
    cell="deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k",
    patch="deepspeed-7967",
    measured={
        "deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k [0.15.1]": 2.7e-07,
        "deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k [0.15.2]": 0.41,
        "deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k [0.16.4]": 0.41,
        "deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k [0.16.5]": 2.7e-07,
    },
    details="Needs gradient_accumulation_steps > 1 in the configuration and steps of different lengths. Right before and after.",
)
