"""Up to 0.10.2 the ranks of the actor are averaged whatever they count: a mean of means even where nothing is accumulated.

0.10.3 divides a micro-batch by the tokens that all ranks have in theirs (https://github.com/OpenRLHF/OpenRLHF/commit/df78645e).
"""

from __future__ import annotations

from ..advisory import Advisory
from .rl_actor_mean_of_means import ADVISORY as WINDOW

ADVISORY = Advisory(
    id="openrlhf-mean-over-ranks-actor",
    framework="openrlhf",
    title="Every rank of the actor is averaged over its own tokens, then the ranks: a mean of means",
    affected=(("0.7.0", "0.10.3"),),
    trigger=({**WINDOW.trigger[0], "K": (1,), "world_size": {"min": 2}},),
    signature=WINDOW.signature,
    links=("https://github.com/OpenRLHF/OpenRLHF/commit/df78645e",),
    cell="openrlhf-llama.lm-W2-K1-objective:ppo-batch:prompted",
    measured={
        "openrlhf-llama.lm-W2-K1-objective:ppo-batch:prompted [0.7.0.post1]": 0.058,
        "openrlhf-llama.lm-W2-K1-objective:ppo-batch:prompted [0.9.0]": 0.058,
        "openrlhf-llama.lm-W2-K1-objective:ppo-batch:prompted [0.10.3]": 9.5e-07,
    },
    details="The patch openrlhf-1249-actor counts over all ranks and micro-batches and cures this too.",
)
