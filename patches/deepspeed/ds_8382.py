"""On a CPU, ZeRO-1 and ZeRO-2 skip the all-reduce of gradients that are not in one contiguous buffer.

https://github.com/deepspeedai/DeepSpeed/pull/8382. The gradients are sorted into buckets by the name of their
type, spelled with the name of the device; on a CPU torch leaves that name out, so every bucket stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..advisory import Advisory, Alternative
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OPTIMIZER

if TYPE_CHECKING:
    import torch

_ALWAYS: Alternative = {
    "device": ("cpu",),
    "world_size": {"min": 2},
    "offload_optimizer": ("none",),
    "contiguous_gradients": (False,),
}

ADVISORY = Advisory(
    id="deepspeed-8382",
    framework="deepspeed",
    title="On CPU, ZeRO-1/2 without contiguous gradients never averages the gradients over the ranks",
    affected=(("0.14.5", "0.19.8"),),
    trigger=(
        {**_ALWAYS, "stage": (2,)},
        # Stage 1 in bf16 with fp32 accumulation has an optimizer of its own, without these buckets.
        {**_ALWAYS, "stage": (1,), "dtype": ("fp32",)},
        {**_ALWAYS, "stage": (1,), "grad_accum_dtype": {"not": ("fp32",)}},
    ),
    signature=("unreduced", "unexplained"),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/8382",),
    cell="deepspeed-mlp-W2-K4-stage:2-contiguous_gradients:false",
    patch="deepspeed-8382",
    measured={
        "deepspeed-mlp-W2-K1x3-stage:1-contiguous_gradients:false [0.14.5]": 1.0,
        "deepspeed-mlp-W2-K4x3-stage:1-contiguous_gradients:false [0.14.5]": 0.83,
        "deepspeed-mlp-W2-K1x3-stage:2-contiguous_gradients:false [0.14.5]": 1.0,
        "deepspeed-mlp-W2-K4x3-stage:2-contiguous_gradients:false [0.14.5]": 0.83,
        "deepspeed-mlp-W2-K1x3-stage:1-contiguous_gradients:false [0.19.7]": 1.0,
        "deepspeed-mlp-W2-K4x3-stage:1-contiguous_gradients:false [0.19.7]": 0.83,
        "deepspeed-mlp-W2-K1x3-stage:2-contiguous_gradients:false [0.19.7]": 1.0,
        "deepspeed-mlp-W2-K4x3-stage:2-contiguous_gradients:false [0.19.7]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:2-contiguous_gradients:false [0.19.8]": 2e-07,
    },
    details=(
        "Each rank updates its partition with its own gradient. Optimizer offload forces contiguous gradients and "
        "is not affected. From 0.18.7 to 0.18.9 two ranks on torch 2.13 fail loudly before it shows."
    ),
)


def _split(original: Callable[..., list[list[torch.Tensor]]], tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    buckets = original(tensors)
    sorted_already = {id(tensor) for bucket in buckets for tensor in bucket}
    left: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        if id(tensor) not in sorted_already and not tensor.is_sparse:
            left.setdefault(tensor.dtype, []).append(tensor)
    return [*buckets, *left.values()]


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"split_half_float_double": _split},
    relies_on=("split_half_float_double", f"{OPTIMIZER}.buffered_reduce_fallback", f"{OPTIMIZER}.allreduce_no_retain"),
    fingerprints={
        "ab3c21679abf3b77790186eb45757768603a2fe4bcd461b47c2fa7d727f78f41": "0.14.5 .. 0.17.1",
        "37909a39766f80be307dcb88f5bbd57914433b5b170cac4b20e41e8503236406": "0.17.2 .. 0.19.7",
    },
)
