"""ZeRO-3 over gloo: gathering several parameters at once may show them before they have arrived.

``GatheredParameters`` starts one all-gather per parameter and waits for the last of them. On a GPU the stream keeps
the order; over gloo the earlier ones may still be under way, and what is read is whatever lay in memory.
Not reported upstream as far as is known. Shown by reports/published/scripts/zero3_gather_race.py.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-7",
    framework="deepspeed",
    title="ZeRO-3 over gloo: GatheredParameters on several parameters may return garbage",
    affected=(("0.15.1", "0.19.8"),),
    trigger=(),  # a race: no cell shows it every time, and the driver gathers one by one to keep out of it
    signature=("reading",),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/runtime/zero/partition_parameters.py",),
    cell="deepspeed-mlp-W2-K1-stage:3",
    measured={
        "wrong readings of 300 [0.15.1]": 12.0,
        "wrong readings of 300 [0.18.9]": 11.0,
        "wrong readings of 300 [0.19.7]": 10.0,
        "wrong readings of 300 [0.19.8]": 0.0,
    },
    details="Two ranks on a CPU. Gathering one parameter at a time is right.",
)
