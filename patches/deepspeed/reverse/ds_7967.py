"""Put back: ZeRO-2 with the optimizer on the CPU forgets all but the first and the last micro-batch (0.15.2 to 0.18.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER


def _accumulate(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    """The sum goes into the gradient, and the accumulator keeps what the first micro-batch left in it."""
    key = optimizer.get_param_id(param)
    kept = optimizer.accumulated_grads_in_cpu.get(key)
    kept = None if kept is None else kept.clone()
    original(optimizer, param)
    if optimizer.micro_step_id > 0:
        accumulator = optimizer.accumulated_grads_in_cpu[key]
        accumulator.copy_(accumulator.new_zeros(()) if kept is None else kept)


REVERSE = Reverse(
    module=MODULE,
    around={f"{OPTIMIZER}.async_accumulate_grad_in_cpu_via_gpu": _accumulate},
    relies_on=(f"{OPTIMIZER}.copy_grads_in_partition", f"{OPTIMIZER}.setup_buckets", f"{OPTIMIZER}.step"),
    verified={
        "fa237b90614f79060ed38c1ae8d42f5184a73556d72bf36138337e90415a1663": "0.19.0 .. 0.19.1",
        "2cf42df9b28fc2f3fb7d29fb4ba63d025d139f6f9d62c7bfcb9ab802659e788d": "0.19.2 .. 0.19.4",
        "16e838aaf4ff81da41cc1033c45a6058dab18e9436fb9906c3cc3604d81d009a": "0.19.5 .. 0.19.6",
        "070aab426a0a47ab21fc6bd6ebd82dfcf902460d5d6ed71209ef29ec8b1d5c55": "0.19.7",
        "3c128afcd596e390a2b083a6fc425fb0235639b22d78b526a378ffb3b7a18008": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu", "deepspeed-mlp-W1-K3-stage:2-offload_optimizer:cpu"),
    kinds=("dropped",),
    words="weight 0",
    probe="offload",
)
def deepspeed_7967() -> Iterator[None]:
    """ZeRO-2 with optimizer offload drops every micro-batch but the first and the last
    (https://github.com/deepspeedai/DeepSpeed/pull/7967)."""
    with REVERSE.put_back():
        yield
