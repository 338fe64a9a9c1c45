"""After set_train_batch_size the accumulation window begins in the wrong place.

The engine asks whether the count of all micro-batches since it was made is a multiple of the *current* number
of accumulation steps (``is_gradient_accumulation_boundary``), so a window whose length changed begins where
that count happens to be: its first step is taken too early or too late and its micro-batches go to two steps.
https://deepspeed.readthedocs.io/en/latest/training.html documents the call as a way to adjust the number of
accumulation steps. Seen in every release that was run; no report is known to us.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-1",
    framework="deepspeed",
    title="after set_train_batch_size a step is taken at the wrong micro-batch",
    affected=(("0.14.5", None),),
    trigger=({"accumulate": ("managed",), "aligned": (False,)},),
    signature=("dropped", "stale", "re-weighted", "unexplained", "loss", "reading", "norm"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.0/deepspeed/runtime/engine.py",),
    cell="deepspeed-mlp-W1-K1.8.2",
    measured={
        "deepspeed-mlp-W1-K1.8.2 [0.15.1]": 0.512,
        "deepspeed-mlp-W1-K1.8.2 [0.18.9]": 0.512,
        "deepspeed-mlp-W1-K1.8.2 [0.19.8]": 0.512,
        "deepspeed-mlp-W1-K3.1.4 [0.19.8]": 1.8e-07,
    },
    details="Right where every window begins at a multiple of its own length, or with set_gradient_accumulation_boundary.",
)
