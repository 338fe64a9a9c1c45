"""Items are counted on each rank, and the ranks are averaged: a token weighs more on a rank that has few.

Until 4.46.1 there is no other way; since 4.46.2 ``average_tokens_across_devices`` counts over all ranks
(https://github.com/huggingface/transformers/pull/34373), and since 4.54.0 it is the default. What it does without is documented.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import DOCS, UNLIKE

_PER_RANK = tuple(
    {**one, "world_size": {"min": 2}, "averages": (False,), "accepts_items": (True,), "ignores_items": (False,)}
    for one in UNLIKE
)

ADVISORY = (
    Advisory(
        id="transformers-34373",
        framework="transformers",
        title="Items are counted on each rank alone: a mean over ranks of means",
        affected=(("4.46.0", "4.46.2"),),
        trigger=_PER_RANK,
        signature=("re-weighted", "loss", "unexplained", "norm"),
        links=("https://github.com/huggingface/transformers/pull/34373",),
        cell="transformers-llama.lm-W2-K1-batch:prompted",
        measured={"transformers-llama.lm-W2-K1-batch:prompted [4.46.0]": 0.0593},
    ),
    Advisory(
        id="transformers-34373-default",
        framework="transformers",
        title="changed in 4.54.0: without average_tokens_across_devices items are counted on each rank alone",
        affected=(("4.46.2", None),),
        trigger=_PER_RANK,
        signature=("re-weighted", "loss", "unexplained", "norm"),
        links=(f"{DOCS}/v4.53.3/en/main_classes/trainer#transformers.TrainingArguments.average_tokens_across_devices",),
        cell="transformers-llama.lm-W2-K2-batch:prompted-average_tokens:false",
        measured={
            "transformers-llama.lm-W2-K1-batch:prompted [4.53.3]": 0.0593,
            "transformers-llama.lm-W2-K2-batch:prompted-average_tokens:false [5.23.0]": 0.0804,
        },
        details="Set average_tokens_across_devices=True explicitly: the default was False until 4.53.3.",
        by_design=True,
    ),
)
