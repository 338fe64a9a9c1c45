"""The documented loop for samples of variable size never ends its iterator, so the loader never gets to epoch 1.

https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation (and the example script of the same subject)
takes exactly as many batches with next() as there are. A prepared loader counts an epoch only where its generator is
resumed after the last batch. The count is what set_epoch is called with, so a sampler whose order depends on the epoch
repeats the first one's in all passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="accelerate-recipe-repeats-epoch",
    framework="accelerate",
    title="the documented loop for samples of variable size shows a sampler the same epoch in every pass",
    affected=(("1.0.0", None),),
    trigger=({"via": ("no_sync", "prefetched"), "sampler": ("epoch",)},),
    signature=("unexplained", "loss"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation#skeleton-code",),
    cell="accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch",
    patch="accelerate-recipe-repeats-epoch",
    measured={
        "accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch [1.0.1]": 1.42,
        "accelerate-mlp-W1-K2x4-via:no_sync-sampler:epoch [1.15.0]": 1.42,
        "accelerate-mlp-W1-K2x4-sampler:epoch [1.15.0]": 2.12e-07,
    },
    details="Call the prepared loader's set_epoch before every pass, or exhaust the iterator.",
)


def _iter(original: Callable[..., Any], self: Any) -> Iterator[Any]:
    """The epoch is counted with the last batch, not after it."""
    following = None
    for batch in original(self):
        if self.end_of_dataloader:
            self.iteration = following = self.iteration + 1
        yield batch
    if following is not None:
        self.iteration = following  # which the original has counted as well


PATCH = Patch(
    advisory=ADVISORY,
    module="accelerate.data_loader",
    around={"DataLoaderShard.__iter__": _iter, "DataLoaderDispatcher.__iter__": _iter},
    relies_on=("DataLoaderShard.__iter__", "DataLoaderDispatcher.__iter__", "DataLoaderStateMixin"),
    fingerprints={"e8073c8584c1b35d19981bebeff64e430d3f3aa80e229bad9f534e85d21447c8": "1.10.1 .. 1.15.0"},
)
