"""Put back: in bf16 with fp32 accumulation and offload, ZeRO-1 reduces a copy of the sum and steps on the sum (up to 0.19.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER


def _concerns(optimizer: Any) -> bool:
    return bool(optimizer.cpu_offload and optimizer.use_grad_accum_attribute and not optimizer.partition_gradients)


def _for_reduction(original: Callable[..., Any], optimizer: Any, param: Any) -> Any:
    gradient = original(optimizer, param)
    return gradient.to(optimizer.dtype).to(gradient.dtype) if _concerns(optimizer) and gradient is not None else gradient


def _use_compact(original: Callable[..., bool], optimizer: Any, group: int) -> bool:
    """The buffer that takes the result of the reduction did not exist."""
    return not _concerns(optimizer) and original(optimizer, group)


REVERSE = Reverse(
    module=MODULE,
    around={
        f"{OPTIMIZER}.get_gradient_for_reduction": _for_reduction,
        f"{OPTIMIZER}._use_compact_grad_partition_buffer": _use_compact,
    },
    relies_on=(
        f"{OPTIMIZER}.copy_grads_in_partition",
        f"{OPTIMIZER}.get_param_gradient_attribute",
        f"{OPTIMIZER}.reduce_gradients",
        f"{OPTIMIZER}.reduce_independent_p_g_buckets_and_remove_grads",
        f"{OPTIMIZER}.reduce_ipg_grads",
    ),
    verified={
        "ee545aa0b63f027fa3f2841a05d03d5ab455aca0818ceba02221ec18414e10cd": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W2-K4-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32",),
    kinds=("unreduced",),
    probe="offload",
)
def offload_unreduced() -> Iterator[None]:
    """ZeRO-1 in bf16 with fp32 accumulation and optimizer offload never averages over the ranks
    (https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/runtime/zero/stage_1_and_2.py)."""
    with REVERSE.put_back():
        yield
