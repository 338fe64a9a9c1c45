"""Put back: bf16 at stage 0 divides by a loss scale that was never applied (0.18.3 to 0.18.5), and keeps the gradients
of all earlier steps (0.17.6 to 0.18.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

_MODULE = "deepspeed.runtime.fp16.unfused_optimizer"
_OPTIMIZER = "FP16_UnfusedOptimizer"
_TAKE_STEP = "deepspeed.runtime.engine:DeepSpeedEngine._take_model_step"


def _is_bf16(optimizer: Any) -> bool:
    import torch

    return bool(optimizer.low_precision_dtype == torch.bfloat16)


def _init(original: Callable[..., None], optimizer: Any, *args: Any, **kwargs: Any) -> None:
    """The scale is the one that fp16 begins with."""
    original(optimizer, *args, **kwargs)
    if _is_bf16(optimizer):
        optimizer.loss_scale_config.cur_scale = 2.0**16


def _zero_grad(original: Callable[..., None], optimizer: Any, *args: Any, **kwargs: Any) -> None:
    if not _is_bf16(optimizer):
        original(optimizer, *args, **kwargs)


DIVIDED = Reverse(
    module=_MODULE,
    around={f"{_OPTIMIZER}.__init__": _init},
    relies_on=(f"{_OPTIMIZER}.step", f"{_OPTIMIZER}.unscale_and_clip_grads", f"{_OPTIMIZER}.backward"),
    verified={
        "698e2bb4cc19d8a8a916be7f917a239938ef489d4424ee678b160fcbba1ee09d": "0.19.0",
        "bb257bceaa425df261c40f5a56c8ee26934fe6ed8f6090daf4698096dbba5e0a": "0.19.1 .. 0.19.7",
        "ae91af9b0430bb797e01c333660f24d45d262758c0a66aea1b07987ea65b3cbc": "0.19.8",
    },
)
STALE = Reverse(
    module=_MODULE,
    around={f"{_OPTIMIZER}.zero_grad": _zero_grad},
    relies_on=(f"{_OPTIMIZER}.step", _TAKE_STEP),
    verified={
        "016def0e656c0db4a16f51380b9d6c50c6bfdc63ab6e7454ffb6da29201743c5": "0.19.0 .. 0.19.3",
        "ac8d68d3b87ec0f96bd81ebccf3461810aae3bb69dcda062f20ce5c929931823": "0.19.4 .. 0.19.6",
        "8514699f497825b9f3de9a864340e1f20b505596b2eabac2c1be16951c5e02a3": "0.19.7",
        "344903236edcd7b3dd5f834acb2ec1f1fb6947f4ec6c943e5db4b6451505e646": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K4-dtype:bf16", "deepspeed-mlp-W1-K1-dtype:bf16"),
    kinds=("scaled",),
    probe="precision",
)
def deepspeed_7839_divided() -> Iterator[None]:
    """bf16 at stage 0 divides the update by a loss scale of 65536 that was never applied
    (https://github.com/deepspeedai/DeepSpeed/pull/7839)."""
    with DIVIDED.put_back():
        yield


@fault(kind=HISTORICAL, cells=("deepspeed-mlp-W1-K2x3-dtype:bf16",), kinds=("stale",), probe="precision")
def deepspeed_7839_stale() -> Iterator[None]:
    """bf16 at stage 0 keeps the gradients of all earlier steps (https://github.com/deepspeedai/DeepSpeed/pull/7839)."""
    with STALE.put_back():
        yield
