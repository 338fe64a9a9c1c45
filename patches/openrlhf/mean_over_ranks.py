"""Up to 0.10.2 ranks are averaged whatever they count: a mean of means even where nothing is accumulated.

0.10.3 divides a micro-batch by the tokens that all ranks have in theirs
(https://github.com/OpenRLHF/OpenRLHF/commit/df78645e).
"""

from __future__ import annotations

from ..advisory import Advisory
from .sft_mean_of_means import SFT

ADVISORY = Advisory(
    id="openrlhf-mean-over-ranks",
    framework="openrlhf",
    title="Every rank is averaged over its own tokens, then the ranks: a mean of means",
    affected=(("0.5.0", "0.10.3"),),
    trigger=({**SFT, "world_size": {"min": 2}, "K": (1,)},),
    signature=("re-weighted", "scaled", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/commit/df78645e",),
    cell="openrlhf-llama.lm-W2-K1-objective:response_mean-batch:prompted",
    measured={
        "openrlhf-llama.lm-W2-K1-objective:response_mean-batch:prompted [0.5.0]": 0.063,
        "openrlhf-llama.lm-W2-K1-objective:response_mean-batch:prompted [0.10.2]": 0.063,
        "openrlhf-llama.lm-W2-K1-objective:response_mean-batch:prompted [0.10.3]": 5.5e-07,
    },
    details="The patch of openrlhf-1249 counts over all ranks and micro-batches and cures this too.",
)
