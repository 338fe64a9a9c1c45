"""ZeRO-2 with the optimizer on the CPU keeps the last of several backwards only.

https://github.com/deepspeedai/DeepSpeed/pull/7981. With ``gradient_accumulation_steps`` 1 the gradients are
not accumulated at all, although ``set_gradient_accumulation_boundary`` allows several backwards per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OFFLOADED_ACCUMULATION, OPTIMIZER, settle_accumulator

ADVISORY = Advisory(
    id="deepspeed-7981",
    framework="deepspeed",
    title="ZeRO-2 with optimizer offload keeps only the last of several backwards per step",
    affected=(("0.14.5", "0.19.0"),),
    trigger=(
        {
            "stage": (2,),
            "offload_optimizer": ("cpu",),
            "K": {"min": 2},
            "accumulate": ("boundary",),
        },
    ),
    signature=("dropped",),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/7981",),
    cell="deepspeed-mlp-W1-K3-stage:2-offload_optimizer:cpu-accumulate:boundary",
    patch="deepspeed-7981",
    measured={
        "deepspeed-mlp-W1-K2x3-stage:2-offload_optimizer:cpu-accumulate:boundary [0.14.5]": 0.95,
        "deepspeed-mlp-W1-K2x3-stage:2-offload_optimizer:cpu-accumulate:boundary [0.18.9]": 0.95,
        "deepspeed-mlp-W1-K2x3-stage:2-offload_optimizer:cpu-accumulate:boundary [0.19.0]": 1.7e-06,
        "deepspeed-mlp-W1-K3.1.4-stage:2-offload_optimizer:cpu-accumulate:boundary [0.14.5]": 0.9,
        "deepspeed-mlp-W1-K3.1.4-stage:2-offload_optimizer:cpu-accumulate:boundary [0.18.9]": 0.9,
        "deepspeed-mlp-W1-K3.1.4-stage:2-offload_optimizer:cpu-accumulate:boundary [0.19.0]": 8.1e-07,
    },
    details=(
        "Only with gradient_accumulation_steps 1 in the configuration and several engine.backward() between two "
        "steps. Seen from 0.14.5 on, the oldest release that was run."
    ),
)


def _copy(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    lone = optimizer.is_gradient_accumulation_boundary and optimizer.micro_step_id <= 0
    if optimizer.cpu_offload and optimizer.gradient_accumulation_steps <= 1 and not lone:
        optimizer.async_accumulate_grad_in_cpu_via_gpu(param)
        # That method has a bug of its own from 0.15.2 on (#7967), whose cure need not be applied.
        settle_accumulator(optimizer, param)
    original(optimizer, param)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={f"{OPTIMIZER}.copy_grads_in_partition": _copy},
    relies_on=OFFLOADED_ACCUMULATION,
    fingerprints={
        "c90c39be6160118a9ac8ccdc9ae76639362d30083e0524b52e431fc9a743cbdb": "0.14.5 .. 0.15.1",
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
