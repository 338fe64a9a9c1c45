"""Put back: in bf16 with fp32 accumulation ZeRO-1 reduces before the last micro-batch was added (0.18.5 to 0.18.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

_BF16 = "deepspeed.runtime.bf16_optimizer:BF16_Optimizer"


def _epilogue(original: Callable[..., None], engine: Any) -> None:
    """The optimizer's own epilogue, which adds the micro-batch to the fp32 sum, comes after the engine's."""
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    if not isinstance(engine.optimizer, BF16_Optimizer):
        original(engine)
        return
    add = engine.optimizer.backward_epilogue
    engine.optimizer.backward_epilogue = lambda: None
    try:
        original(engine)
    finally:
        del engine.optimizer.backward_epilogue
    add()


REVERSE = Reverse(
    module="deepspeed.runtime.engine",
    around={"DeepSpeedEngine._backward_epilogue": _epilogue},
    relies_on=(
        "DeepSpeedEngine.allreduce_gradients",
        f"{_BF16}.backward_epilogue",
        f"{_BF16}.update_hp_grads",
        f"{_BF16}._update_hp_grad",
        f"{_BF16}.get_grads_for_reduction",
    ),
    verified={
        "ba343a30782ffc42c7388d2132c957fd9fd58eb25e48c08b2852cedb67a1ef00": "0.19.0 .. 0.19.2",
        "7046ce190b998b5c7223025b7ff44b34320d12bacc0c433fcf635a4069e80d89": "0.19.3 .. 0.19.4",
        "bf12a9ab29943e8c3b3a3251d22c99a91bffb5f9da8c4a0f953e49ea7f2bbc74": "0.19.5",
        "6a7d56591de1855b56bd8f8f3a903884fcf2f5a0ed8ac6ee45b34fbeb631c93b": "0.19.6 .. 0.19.7",
        "78beb6096db738fea24ccd811ee0618c8f247ce24eaa85734fc0c78087ab7f44": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W2-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32",),
    checks=("gradient", "norm", "ranks"),
    kinds=("unreduced",),
    probe="ranks",
)
def deepspeed_7985() -> Iterator[None]:
    """ZeRO-1 in bf16 with fp32 accumulation does not average the last micro-batch over the ranks
    (https://github.com/deepspeedai/DeepSpeed/pull/7985)."""
    with REVERSE.put_back():
        yield
