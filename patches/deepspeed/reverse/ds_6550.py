"""Put back: ZeRO-1 with the optimizer on the CPU adds the gradient of an earlier, shorter step (0.15.2 to 0.16.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

from .._stage_1_and_2 import MODULE, OPTIMIZER

# How many backwards of the window are over; and per parameter, what a window of a single one left behind.
_over: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_left: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()


def _copy(original: Callable[..., None], optimizer: Any, param: Any, *args: Any) -> None:
    if optimizer.cpu_offload and not optimizer.partition_gradients and optimizer.gradient_accumulation_steps > 1:
        left, key = _left.setdefault(optimizer, {}), optimizer.get_param_id(param)
        gradient = optimizer.get_param_gradient_attribute(param).data
        if not _over.get(optimizer):
            left[key] = gradient.clone()
        elif key in left:
            gradient.add_(left[key])
    original(optimizer, param, *args)


def _epilogue(original: Callable[..., None], optimizer: Any, *args: Any, **kwargs: Any) -> None:
    original(optimizer, *args, **kwargs)
    _over[optimizer] = _over.get(optimizer, 0) + 1


def _step(original: Callable[..., Any], optimizer: Any, *args: Any, **kwargs: Any) -> Any:
    _over[optimizer] = 0
    return original(optimizer, *args, **kwargs)


REVERSE = Reverse(
    module=MODULE,
    around={
        f"{OPTIMIZER}.copy_grads_in_partition": _copy,
        f"{OPTIMIZER}.backward_epilogue": _epilogue,
        f"{OPTIMIZER}.step": _step,
    },
    relies_on=(f"{OPTIMIZER}.reduce_ipg_grads", f"{OPTIMIZER}.setup_buckets"),
    verified={
        "b08fcc94c52c9e11d27da428ec1782b1c962055be929262938b3f3959444b66a": "0.19.0 .. 0.19.1",
        "c32aa5cacbd4878f32f8f0f11a417d21accb2ef15cd69d7852fc8a3758d0e3f8": "0.19.2 .. 0.19.4",
        "88172695dfedb582903393274ba82b7f7f39e076122ec0208d1fdb022b8e4cd3": "0.19.5 .. 0.19.6",
        "256be4b4839b686e200dc22fbc7c75f6fc991b547b71f18db41dd5923b951769": "0.19.7",
        "5fa23e48ec167bd71e220932ea5a938945c3e8c11dd3bb19999a4afa6a0f1f73": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K3.1.4-stage:1-offload_optimizer:cpu-accumulate:boundary_k",),
    kinds=("stale",),
    words="the previous step's gradient",
    probe="offload",
)
def deepspeed_6550() -> Iterator[None]:
    """ZeRO-1 with optimizer offload adds the gradient of an earlier step when steps differ in length
    (it came with https://github.com/deepspeedai/DeepSpeed/pull/6550)."""
    with REVERSE.put_back():
        yield
