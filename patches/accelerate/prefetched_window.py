"""accumulate() around a window that was loaded first: the last window of a pass takes a step per micro-batch.

A prepared loader says that it is at its end as soon as its last batch is out, and accumulate() then synchronises
(https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation says that it assumes so naively, and how to
switch it off). A loop that loads a whole window to count its items is at the end for all micro-batches of it.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-prefetched-window",
    framework="accelerate",
    title="the last window of a pass takes one optimizer step per micro-batch if it was loaded before accumulate()",
    affected=(("1.0.0", None),),
    trigger=({"via": ("prefetched",), "sync_with_dataloader": ("true",), "K": {"min": 2}},),
    signature=("unexplained", "dropped", "scaled", "re-weighted", "stale", "clipped", "loss", "moments", "update", "norm", "lr", "ranks"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation#letting-accelerate-handle-gradient-accumulation",),
    cell="accelerate-mlp-W1-K4x2-via:prefetched",
    measured={
        "accelerate-mlp-W1-K4x2-via:prefetched [1.0.1]": 1.49,
        "accelerate-mlp-W1-K4x2-via:prefetched [1.15.0]": 1.49,
        "accelerate-mlp-W1-K4x2-via:prefetched-sync_with_dataloader:false [1.15.0]": 1.61e-07,
    },
    details="GradientAccumulationPlugin(sync_with_dataloader=False) where windows are full, or no_sync by hand.",
    by_design=True,
)
