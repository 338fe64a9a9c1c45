"""Put back: at stage 0 clipping takes the larger of 1 and the factor, so it never clips and scales small norms up (0.13.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse


def _clip(original: Callable[..., Any], parameters: Iterable[Any], max_norm: float, **kwargs: Any) -> Any:
    clipped = [p for p in parameters if p.grad is not None]
    before = [p.grad.clone() for p in clipped]
    norm = original(clipped, max_norm, **kwargs)
    for p, kept in zip(clipped, before, strict=True):
        p.grad.copy_(kept * (max_norm / (norm + 1e-6)).clamp(min=1.0))
    return norm


REVERSE = Reverse(
    module="deepspeed.runtime.engine",
    around={"clip_grad_norm_": _clip},
    relies_on=(
        "deepspeed.runtime.utils:clip_grad_norm_",
        "DeepSpeedEngine.clip_fp32_gradients",
        "DeepSpeedEngine._take_model_step",
    ),
    verified={
        "05d2785d876df9bd6a62414e9759de81e686a53125f38662ba97abdc075733b2": "0.19.0 .. 0.19.3",
        "d0d5032f5530c842fa2e60d4bf90b0b7713c0a58fef513f4802180010c32082c": "0.19.4 .. 0.19.6",
        "c4ea4a71b44f8799ec7f7cabe4ac5779ca1a784b2b73d08048b5cbf648c5608f": "0.19.7",
        "937987cdfab44e9a20a469ae5834e203f135cf635f9d9ea2b6ff75c85847b5c6": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K4-clipping:tight",),
    kinds=("clipped",),
    words="was not clipped",
    probe="clipping",
)
def deepspeed_5150() -> Iterator[None]:
    """Clipping at stage 0 never clips, and scales a gradient of small norm up
    (https://github.com/deepspeedai/DeepSpeed/pull/5150)."""
    with REVERSE.put_back():
        yield
