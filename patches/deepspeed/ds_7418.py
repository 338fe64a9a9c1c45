"""ZeRO-3 with reduce_scatter: false keeps the gradient of the first micro-batch of the run and no other (0.17.2 only).

The count of what is in the bucket was not set back when the bucket was emptied: https://github.com/deepspeedai/DeepSpeed/pull/7418, which was
reported as one parameter at a time being reduced (https://github.com/deepspeedai/DeepSpeed/issues/7415). Where gradients are averaged by
all-reduce, a gradient is copied into the bucket behind that count, and what is averaged is the bucket from its beginning: the first one again.
A bucket that is too small for all gradients at once is not used in this way and is right.
"""

from __future__ import annotations

from ..advisory import Advisory

_WHERE = {"stage": (3,), "reduce_scatter": ("false",), "bucket": ("large",), "contiguous_gradients": {"not": ("false",)}}

ADVISORY = Advisory(
    id="deepspeed-7418",
    framework="deepspeed",
    title="ZeRO-3 with reduce_scatter: false trains on the first micro-batch of the run only",
    affected=(("0.17.2", "0.17.3"),),
    trigger=(
        {**_WHERE, "K": {"min": 2}},
        {**_WHERE, "steps": {"min": 2}, "checkpoint": {"not": ("reload",)}},  # a reloaded engine begins anew
        {**_WHERE, "steps": {"min": 3}},
    ),
    signature=("dropped", "scaled", "stale", "re-weighted", "unexplained", "norm", "clipped"),
    links=("https://github.com/deepspeedai/DeepSpeed/pull/7418", "https://github.com/deepspeedai/DeepSpeed/issues/7415"),
    cell="deepspeed-mlp-W1-K4-stage:3-reduce_scatter:false",
    measured={
        "deepspeed-mlp-W1-K4-stage:3-reduce_scatter:false [0.17.2]": 3.77,
        "deepspeed-mlp-W2-K1x3-stage:3-reduce_scatter:false [0.17.2]": 1.82,
    },
    details="Right in 0.16.9, 0.17.0, 0.17.1, 0.17.3, 0.17.4, 0.17.5 and 0.17.6.",
)
