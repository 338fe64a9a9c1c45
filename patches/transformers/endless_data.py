"""An IterableDataset that ends within a window: what has been accumulated stays, and is added to the next epoch's first step.

The end of an epoch is known by its length alone; a dataset without one takes no step there and clears no gradient, so the
next window comes on top, each normalised by its own items: weights that sum to 2. Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

ADVISORY = Advisory(
    id="truestep-2026-22",
    framework="transformers",
    title="An IterableDataset that ends within a window: its gradient is added to the first step of the next epoch",
    affected=(("4.52.1", None),),
    trigger=({**FACTS, "data": ("iterable",), "varying": (True,)},),
    signature=("unexplained", "re-weighted", "scaled", "stale", "loss", "dropped", "norm"),
    links=("https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py",),
    cell="transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable",
    measured={"transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable [5.23.0]": 0.756},
    details="Right with a dataset that knows its length, or whose batches are a multiple of gradient_accumulation_steps.",
)
