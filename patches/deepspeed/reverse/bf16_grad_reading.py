"""Put back: with BF16_Optimizer ``safe_get_full_grad`` reads the last micro-batch of this rank (up to 0.19.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

_READ = "deepspeed.utils.tensor_fragment:safe_get_full_grad"


def _update(original: Callable[..., None], optimizer: Any, lp: Any, *args: Any, **kwargs: Any) -> None:
    """Without the link to the fp32 sum the reading falls back on the parameter's own gradient."""
    original(optimizer, lp, *args, **kwargs)
    lp._hp_grad = None


REVERSE = Reverse(
    module="deepspeed.runtime.bf16_optimizer",
    around={"BF16_Optimizer._update_hp_grad": _update},
    relies_on=("BF16_Optimizer.update_hp_grads", "BF16_Optimizer.backward_prologue", _READ),
    verified={
        "e71365b71fa5b8e496ac6c660e58614b361cd903b50b84c417dac26e16ff1241": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K4-stage:1-dtype:bf16-grad_accum_dtype:fp32-read:grad",),
    checks=("reading safe_get_full_grad",),
    probe="readings",
)
def bf16_grad_reading() -> Iterator[None]:
    """safe_get_full_grad misses accumulated micro-batches in bf16 with fp32 accumulation at stage 1
    (https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/utils/tensor_fragment.py)."""
    with REVERSE.put_back():
        yield
