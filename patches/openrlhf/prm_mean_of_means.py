"""``train_prm`` averages every micro-batch over its own steps, then the micro-batches, as train_sft did (openrlhf-1249).

The command line is gone with 0.9.10.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-79",
    framework="openrlhf",
    title="train_prm: a mean of means, the labels of a micro-batch that has few of them weigh more",
    affected=(("0.9.0", "0.9.10"),),
    trigger=(
        {"framework": ("openrlhf",), "objective": ("prm_tokens",), "K": {"min": 2}},
        {"framework": ("openrlhf",), "objective": ("prm_tokens",), "world_size": {"min": 2}},
    ),
    signature=("re-weighted", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.lm-W1-K4-objective:prm_tokens",
    measured={"openrlhf-llama.lm-W1-K4-objective:prm_tokens [0.9.0]": 0.528},
    details="Releases up to 0.7.0 have the command line and fail loudly in it.",
)
