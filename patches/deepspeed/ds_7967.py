"""ZeRO-2 with the optimizer on the CPU forgets all but the first and the last micro-batch.

https://github.com/deepspeedai/DeepSpeed/pull/7967 (the fix); it came with
https://github.com/deepspeedai/DeepSpeed/pull/6550. From the second micro-batch on, the accumulator on the CPU
is added to the gradient, but the sum is no longer written back to the accumulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OFFLOADED_ACCUMULATION, OPTIMIZER, settle_accumulator

ADVISORY = Advisory(
    id="deepspeed-7967",
    framework="deepspeed",
    title="ZeRO-2 with optimizer offload drops every micro-batch but the first and the last",
    affected=(("0.15.2", "0.19.0"),),
    trigger=(
        {
            "stage": (2,),
            "offload_optimizer": ("cpu",),
            "K": {"min": 3},
            "accumulate": ("managed", "boundary_k"),
        },
    ),
    signature=("dropped",),
    links=(
        "https://github.com/deepspeedai/DeepSpeed/pull/7967",
        "https://github.com/deepspeedai/DeepSpeed/pull/6550",
    ),
    cell="deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu",
    patch="deepspeed-7967",
    measured={
        "deepspeed-mlp-W1-K2x3-stage:2-offload_optimizer:cpu [0.15.2]": 3.2e-07,
        "deepspeed-mlp-W1-K3x3-stage:2-offload_optimizer:cpu [0.15.2]": 0.68,
        "deepspeed-mlp-W1-K4x3-stage:2-offload_optimizer:cpu [0.15.2]": 0.59,
        "deepspeed-mlp-W1-K8x3-stage:2-offload_optimizer:cpu [0.15.2]": 0.89,
        "deepspeed-mlp-W1-K2x3-stage:2-offload_optimizer:cpu [0.18.9]": 3.2e-07,
        "deepspeed-mlp-W1-K3x3-stage:2-offload_optimizer:cpu [0.18.9]": 0.68,
        "deepspeed-mlp-W1-K4x3-stage:2-offload_optimizer:cpu [0.18.9]": 0.59,
        "deepspeed-mlp-W1-K8x3-stage:2-offload_optimizer:cpu [0.18.9]": 0.89,
        "deepspeed-mlp-W1-K4x3-stage:2-offload_optimizer:cpu-dtype:bf16 [0.18.9]": 0.59,
        "deepspeed-mlp-W2-K4x3-stage:2-offload_optimizer:cpu [0.18.6]": 0.68,
        "deepspeed-mlp-W1-K4x3-stage:2-offload_optimizer:cpu [0.15.1]": 7e-07,
        "deepspeed-mlp-W1-K4x3-stage:2-offload_optimizer:cpu [0.19.0]": 7e-07,
    },
    details=(
        "With K micro-batches in a step, the optimizer receives (g_first + g_last) / K. Invisible at K = 2. "
        "The reported gradient norm is that of the wrong gradient. Stage 1 and stage 3 are not affected in this way."
    ),
)


def _accumulate(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    original(optimizer, param)
    settle_accumulator(optimizer, param)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={f"{OPTIMIZER}.async_accumulate_grad_in_cpu_via_gpu": _accumulate},
    relies_on=OFFLOADED_ACCUMULATION,
    fingerprints={
        "df662abde702483d3c4d1008650f39d4f39d97a0b93b481d6cb15b22476aed7d": "0.15.2 .. 0.16.2",
        "65467b48ba6c3a234625d7bc4d4e83082022abefc55ced1d9b9e5bb8fef232e5": "0.16.3 .. 0.16.4",
        "85303a89ebb722194f22970154a66a87b89fcee0288f4c3f64b5fec2a709f5e1": "0.16.5 .. 0.16.9",
        "849f65857694cc7c85723394ad19842d68c809f7821dfc460c0f8540ab4d99b3": "0.17.0",
        "8b3c5dcbf0d3715052c026d622c9ff99787d441ba854763aecdc6e7e52111dc1": "0.17.1",
        "a87c8e8adea35c43dc0f749d9ea636eaf799f1e0c17cef09822cca682612bdfe": "0.17.2 .. 0.17.4",
        "5ab207161d3dd860656af4ede94cafb9b429ce3d5d6860b11188ed417a8306ea": "0.17.5",
        "f6bcf4f99966d8c3a74ff8ff2d4362336500633011ec53ad83c5725890476822": "0.17.6 .. 0.18.2",
        "950ffdc9cedec8f834432edcadba2f1ced5e366b0400e581d7875670a527f12a": "0.18.3 .. 0.18.4",
        "69a8d0e5145ffcb00e8355b02457fd7f741f3bec864077a6e3911d2044bfc29d": "0.18.5 .. 0.18.7",
        "59f1a04cb1fe5e021fbf271f4eb6174ae63b17e4cec383a94ce0d0d680c20065": "0.18.8 .. 0.18.9",
    },
)
