"""The documented loop for samples of variable size never ends its iterator, so the loader never gets to epoch 1.

https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation (and the example script of the same subject)
takes exactly as many batches with next() as there are. A prepared loader counts an epoch only where its generator is
resumed after the last batch. The count is what set_epoch is called with, so a sampler whose order depends on the epoch
repeats the first one's in all passes.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-recipe-repeats-epoch",
    framework="accelerate",
    title="the documented loop for samples of variable size shows a sampler the same epoch in every pass",
    affected=(("1.0.0", None),),
    trigger=({"via": ("no_sync", "prefetched"), "sampler": ("epoch",)},),
    signature=("unexplained", "loss"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation#skeleton-code",),
    cell="accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch",
    measured={
        "accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch [1.0.1]": 1.42,
        "accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch [1.15.0]": 1.42,
        "accelerate-mlp-W1-K2x4-sampler:epoch [1.15.0]": 2.12e-07,
    },
    details="Call the prepared loader's set_epoch before every pass, or exhaust the iterator.",
)
