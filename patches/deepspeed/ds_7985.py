"""ZeRO-1 in bf16 with fp32 accumulation: the last micro-batch of a step is not averaged over the ranks.

https://github.com/deepspeedai/DeepSpeed/pull/7985. The gradients are reduced before the last micro-batch has
been added to the fp32 sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

_BF16 = "deepspeed.runtime.bf16_optimizer:BF16_Optimizer"

ADVISORY = Advisory(
    id="deepspeed-7985",
    framework="deepspeed",
    title="ZeRO-1 in bf16 with fp32 accumulation does not average the last micro-batch over the ranks",
    affected=(("0.18.5", "0.19.0"),),
    trigger=(
        {
            "stage": (1,),
            "dtype": ("bf16",),
            "grad_accum_dtype": ("fp32",),
            "offload_optimizer": ("none",),
            "world_size": {"min": 2},
        },
    ),
    signature=("unreduced", "norm"),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/7985",),
    cell="deepspeed-mlp-W2-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32",
    patch="deepspeed-7985",
    measured={
        "deepspeed-mlp-W2-K1x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.5]": 1.0,
        "deepspeed-mlp-W2-K2x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.5]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.5]": 0.52,
        "deepspeed-mlp-W2-K1x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.9]": 1.0,
        "deepspeed-mlp-W2-K2x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.9]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.18.9]": 0.52,
        "deepspeed-mlp-W2-K4x3-stage:1-dtype:bf16-grad_accum_dtype:fp32 [0.19.0]": 0.0052,
    },
    details=(
        "Every rank updates its partition with its own last gradient. Reported upstream for 0.18.6 and later; "
        "by running it begins with 0.18.5 (0.17.6 to "
        "0.18.4 use another optimizer for this configuration). bf16.immediate_grad_update is not affected."
    ),
)


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """The gradients have been added already."""


def _reduce(original: Callable[..., None], engine: Any) -> None:
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    optimizer = engine.optimizer
    if not isinstance(optimizer, BF16_Optimizer) or optimizer.immediate_grad_update:
        original(engine)
        return
    optimizer.backward_epilogue()
    # The original calls it too, but after the reduction.
    optimizer.backward_epilogue = _nothing
    try:
        original(engine)
    finally:
        del optimizer.backward_epilogue


PATCH = Patch(
    advisory=ADVISORY,
    module="deepspeed.runtime.engine",
    around={"DeepSpeedEngine._backward_epilogue": _reduce},
    relies_on=(
        "DeepSpeedEngine._backward_epilogue",
        "DeepSpeedEngine.allreduce_gradients",
        "DeepSpeedEngine.buffered_allreduce_fallback",
        f"{_BF16}.backward_epilogue",
        f"{_BF16}.backward_prologue",
        f"{_BF16}.get_grads_for_reduction",
        f"{_BF16}.update_hp_grads",
        f"{_BF16}._update_hp_grads_func",
        f"{_BF16}._update_hp_grad",
    ),
    fingerprints={
        "f7a9968398e58d4720050968be72c5a6f9933e6c1683268a83ccb424a4708886": "0.18.5 .. 0.18.8",
        "6f5e0b3b27649f1c5189abedf0cd6fd2338bcd453f0fc82085178a3931ef8608": "0.18.9",
    },
)
