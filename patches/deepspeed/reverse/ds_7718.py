"""Put back: ZeRO-2 begins its sum anew with every micro-batch (0.17.6 to 0.18.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER


def _epilogue(original: Callable[..., None], optimizer: Any) -> None:
    """Whether a window has begun is told by what is filled at its end: the sum so far is thrown away."""
    if not optimizer.cpu_offload:
        for group in optimizer.all_grad_tensors:
            if optimizer.averaged_gradients.get(group) is None:
                optimizer.all_grad_tensors[group] = None
    original(optimizer)


REVERSE = Reverse(
    module=MODULE,
    around={f"{OPTIMIZER}.independent_gradient_partition_epilogue": _epilogue},
    relies_on=(f"{OPTIMIZER}.get_all_grad_tensors", f"{OPTIMIZER}.get_flat_partition", f"{OPTIMIZER}.step"),
    verified={
        "3da397a73b1e1c2cbedddc3da7cef4d88df19c975a5c29e57a3c5c46d23420fe": "0.19.0 .. 0.19.1",
        "d6e7ff55e5386a3161092a27fd5129b172faf1afb13be682b796baffe9e2c030": "0.19.2 .. 0.19.4",
        "52f038a6109d087a2e403315ee4b972e4a1cd04c71ae4ed653191609513a8883": "0.19.5 .. 0.19.6",
        "7dff461ab45fb87c90fb40df038d798430d8efed9f9ea3fd493fd541f70b187d": "0.19.7",
        "40726a7f7156a3887c576cfef7a53107c28e9f45c0e8c655ee6c7fd5c1e474e4": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K4-stage:2", "deepspeed-mlp-W1-K3-stage:2"),
    kinds=("dropped",),
    words="weight 0",
    probe="split",
)
def deepspeed_7718() -> Iterator[None]:
    """ZeRO-2 drops every micro-batch but the last (https://github.com/deepspeedai/DeepSpeed/issues/7718)."""
    with REVERSE.put_back():
        yield
