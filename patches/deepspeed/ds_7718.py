"""ZeRO-2 without offload keeps the last micro-batch only.

https://github.com/deepspeedai/DeepSpeed/issues/7718. Whether a window has begun is read from the list that is
filled at its end, so every micro-batch begins it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OPTIMIZER

ADVISORY = Advisory(
    id="deepspeed-7718",
    framework="deepspeed",
    title="ZeRO-2 drops every micro-batch but the last",
    affected=(("0.17.6", "0.18.3"),),
    trigger=({"stage": (2,), "offload_optimizer": ("none",), "K": {"min": 2}},),
    signature=("dropped",),
    links=("https://github.com/deepspeedai/DeepSpeed/issues/7718",),
    cell="deepspeed-mlp-W1-K4-stage:2",
    patch="deepspeed-7718",
    measured={
        "deepspeed-mlp-W1-K4x3-stage:2 [0.17.5]": 7e-07,
        "deepspeed-mlp-W1-K4x3-stage:2 [0.17.6]": 0.97,
        "deepspeed-mlp-W1-K4x3-stage:2 [0.18.2]": 0.97,
        "deepspeed-mlp-W1-K4x3-stage:2 [0.18.3]": 7e-07,
        "deepspeed-mlp-W2-K2x3-stage:2 [0.17.6]": 0.78,
        "deepspeed-mlp-W2-K4x3-stage:2 [0.17.6]": 0.81,
        "deepspeed-mlp-W2-K2x3-stage:2 [0.18.2]": 0.78,
        "deepspeed-mlp-W2-K4x3-stage:2 [0.18.2]": 0.81,
    },
    details=(
        "With K micro-batches in a step, the optimizer receives g_last / K, and the reported norm is that of this "
        "gradient. Optimizer offload takes another path and is not affected (it has #7967)."
    ),
)


def _epilogue(original: Callable[..., None], optimizer: Any) -> None:
    begun: list[int] = []
    if not optimizer.cpu_offload:
        for group, gradients in optimizer.all_grad_tensors.items():
            if gradients is not None and optimizer.averaged_gradients.get(group) is None:
                # Anything but None makes the original add to the sum instead of beginning it anew.
                optimizer.averaged_gradients[group] = gradients
                begun.append(group)
    original(optimizer)
    if not optimizer.is_gradient_accumulation_boundary:
        for group in begun:
            optimizer.averaged_gradients[group] = None


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={f"{OPTIMIZER}.independent_gradient_partition_epilogue": _epilogue},
    relies_on=(
        f"{OPTIMIZER}.independent_gradient_partition_epilogue",
        f"{OPTIMIZER}.get_all_grad_tensors",
        f"{OPTIMIZER}.get_flat_partition",
        f"{OPTIMIZER}.step",
    ),
    fingerprints={
        "bc9d06276e7be64b3ea70b6bad0e48950634255c830172ce254c90396e81b420": "0.17.6 .. 0.18.2",
    },
)
