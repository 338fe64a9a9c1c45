"""Put back: on a CPU, gradients that are not in one contiguous buffer are never reduced (up to 0.19.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER


def _split(original: Callable[..., list[list[Any]]], tensors: Sequence[Any]) -> list[list[Any]]:
    """A bucket counts where its type is spelled with the device's name, as no type on a CPU is."""
    from deepspeed.accelerator import get_accelerator

    device = get_accelerator().device_name()
    return [bucket for bucket in original(tensors) if bucket[0].type().startswith(f"torch.{device}.")]


REVERSE = Reverse(
    module=MODULE,
    around={"split_half_float_double": _split},
    relies_on=(f"{OPTIMIZER}.buffered_reduce_fallback", f"{OPTIMIZER}.reduce_ipg_grads"),
    verified={
        "cde0499d95ac010b13e1804bc0bf7f9983eae51907619f9e09acca950a04dd34": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W2-K1-stage:1-contiguous_gradients:false", "deepspeed-mlp-W2-K4-stage:2-contiguous_gradients:false"),
    kinds=("unreduced",),
    probe="ranks",
)
def deepspeed_8382() -> Iterator[None]:
    """On a CPU, ZeRO-1/2 without contiguous gradients never averages the gradients over the ranks
    (https://github.com/deepspeedai/DeepSpeed/pull/8382)."""
    with REVERSE.put_back():
        yield
