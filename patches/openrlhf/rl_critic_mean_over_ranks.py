"""Up to 0.10.2 the ranks of the critic are averaged whatever they count: a mean of means even where nothing is accumulated.

0.10.3 divides a micro-batch by the tokens that all ranks have in theirs (https://github.com/OpenRLHF/OpenRLHF/commit/df78645e).
"""

from __future__ import annotations

from ..advisory import Advisory
from .rl_critic_mean_of_means import ADVISORY as WINDOW

ADVISORY = Advisory(
    id="openrlhf-mean-over-ranks-critic",
    framework="openrlhf",
    title="Every rank of the critic is averaged over its own tokens, then the ranks: a mean of means",
    affected=(("0.7.0", "0.10.3"),),
    trigger=({**WINDOW.trigger[0], "K": (1,), "world_size": {"min": 2}},),
    signature=WINDOW.signature,
    links=("https://github.com/OpenRLHF/OpenRLHF/commit/df78645e",),
    cell="openrlhf-llama.value-W2-K1-objective:ppo_value-batch:prompted",
    measured={
        "openrlhf-llama.value-W2-K1-objective:ppo_value-batch:prompted [0.7.0.post1]": 0.051,
        "openrlhf-llama.value-W2-K1-objective:ppo_value-batch:prompted [0.9.0]": 0.051,
        "openrlhf-llama.value-W2-K1-objective:ppo_value-batch:prompted [0.10.3]": 7.3e-07,
    },
    details="The patch openrlhf-1249-critic counts over all ranks and micro-batches and cures this too.",
)
