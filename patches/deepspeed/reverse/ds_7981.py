"""Put back: ZeRO-2 with the optimizer on the CPU keeps the last of several backwards only (up to 0.18.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER


def _accumulate(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    """With ``gradient_accumulation_steps`` 1 nothing is accumulated."""
    if optimizer.gradient_accumulation_steps > 1:
        original(optimizer, param)


REVERSE = Reverse(
    module=MODULE,
    around={f"{OPTIMIZER}.async_accumulate_grad_in_cpu_via_gpu": _accumulate},
    relies_on=(f"{OPTIMIZER}.copy_grads_in_partition",),
    verified={
        "81fe6ad1e3f2e8af02ff81a44ad9f7b0193602ff0fda2eed0409284064e7a667": "0.19.0 .. 0.19.4",
        "855e20d8732344d6df544db685103a44e320a941e059f415ef7470e43a22a1dd": "0.19.5 .. 0.19.7",
        "38bce2e973022c46e356a59ab13cf36f83c4216c0304b429055061f382afeba1": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K3-stage:2-offload_optimizer:cpu-accumulate:boundary",),
    kinds=("dropped",),
    words="micro-batches 1 and 2 of 3 have weight 0",
    probe="backwards",
)
def deepspeed_7981() -> Iterator[None]:
    """ZeRO-2 with optimizer offload keeps only the last of several backwards per step
    (https://github.com/deepspeedai/DeepSpeed/pull/7981)."""
    with REVERSE.put_back():
        yield
