"""skip_first_batches on a dispatching loader skips batches of the data set, not of a process: W times too few.

A loader that dispatches (``dispatch_batches``) reads one batch of the data set for every process and deals them out;
its length counts what a process gets. skip_first_batches takes that many off the sampler of the data set instead. With
``split_batches`` the two are the same. Not reported upstream as far as we know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="accelerate-dispatched-skip",
    framework="accelerate",
    title="skip_first_batches on a dispatching loader skips a W-th of what was asked: samples are trained on again",
    affected=(("1.0.0", None),),
    trigger=({"dispatch_batches": ("true",), "split_batches": ("false",), "world_size": {"min": 2}, "checkpoint": ("reload",)},),
    signature=("unexplained", "loss"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/checkpoint#restoring-the-state-of-the-dataloader",),
    cell="accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload",
    patch="accelerate-dispatched-skip",
    measured={
        "accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload [1.0.1]": 1.11,
        "accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload [1.15.0]": 1.11,
        "accelerate-mlp-W2-K2x3-batch:padded-split_batches:true-dispatch_batches:true-checkpoint:reload [1.15.0]": 1.92e-07,
    },
    details="Skip num_processes times as many batches, or split_batches=True.",
)


def _skip_first_batches(original: Callable[..., Any], dataloader: Any, num_batches: int = 0) -> Any:
    from accelerate.data_loader import DataLoaderDispatcher
    from accelerate.state import PartialState
    from torch.utils.data import IterableDataset

    # batches of an iterable data set are skipped where they are dealt out, as many as were asked for
    by_sampler = isinstance(dataloader, DataLoaderDispatcher) and not isinstance(dataloader.dataset, IterableDataset)
    if by_sampler and not dataloader.split_batches:
        num_batches *= PartialState().num_processes
    return original(dataloader, num_batches)


PATCH = Patch(
    advisory=ADVISORY,
    module="accelerate.data_loader",
    around={"skip_first_batches": _skip_first_batches},
    relies_on=("skip_first_batches", "SkipBatchSampler", "DataLoaderDispatcher._fetch_batches", "DataLoaderDispatcher.__iter__"),
    fingerprints={"daefaf3ec6213f8ff14e7366e0affaabb656df928e96c84c88475d6260bdff53": "1.15.0"},
)
