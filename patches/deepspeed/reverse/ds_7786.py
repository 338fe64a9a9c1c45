"""Put back: bf16 at stage 0 neither saves nor loads its optimizer, master weights included (0.17.6 to 0.18.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truestep.fixtures.faults import HISTORICAL, fault
from truestep.patches.reverse import Reverse

_ENGINE = "DeepSpeedEngine"


def _load(original: Callable[..., Any], engine: Any, *args: Any, **kwargs: Any) -> Any:
    if engine.bfloat16_enabled() and not engine.zero_optimization():
        kwargs["load_optimizer_states"] = False
    return original(engine, *args, **kwargs)


REVERSE = Reverse(
    module="deepspeed.runtime.engine",
    around={f"{_ENGINE}._load_checkpoint": _load},
    relies_on=(f"{_ENGINE}.load_checkpoint",),
    verified={
        "33a91087fd4a12e1854ec132aec2e28f0af90862ebe754852c0d3f1b31311840": "0.19.0 .. 0.19.1",
        "7b01ae9d91e79ba37393c163151d5aabd921bbfa4496ad35fa0d720b6f15b391": "0.19.2",
        "86132df81cb847fc5340579a85afab88b79c5fecfb7473a5625f77ecbad6f42a": "0.19.3 .. 0.19.5",
        "d8a640141b4d6d3d639bf8fa4c081a01cfcd31e039427b58a14b5a43c71ea280": "0.19.6",
        "c20b65249b135f520b120feb4c8556ba5c041ee6274ade5d27a1c31872af268d": "0.19.7",
        "d6cf9d986bce3d738de5b6a1fc0f5e61172f49feec40fa609a15dfe52e39b0fe": "0.19.8",
    },
)


@fault(
    kind=HISTORICAL,
    cells=("deepspeed-mlp-W1-K2x3-dtype:bf16-checkpoint:reload",),
    checks=("reload", "gradient"),
    kinds=("stale",),
    probe="checkpoint",
)
def deepspeed_7786() -> Iterator[None]:
    """A checkpoint of bf16 at stage 0 restores neither the master weights nor the optimizer's state
    (https://github.com/deepspeedai/DeepSpeed/pull/7786)."""
    with REVERSE.put_back():
        yield
