"""GKD cuts off as many positions from the left as the longest prompt of a micro-batch has tokens.

Sequences are padded on the left, so a completion that is longer than others begins further to the left, and its first
tokens lie in what is cut off: they have no loss. https://github.com/huggingface/trl/pull/6006 keeps all positions and
relies on the labels. Completions that are generated begin where the longest prompt ends and were right.
"""

from __future__ import annotations

from ..advisory import Advisory
from .gkd_normalisation import OF_DATASET

ADVISORY = Advisory(
    id="trl-6006",
    framework="trl",
    title="GKD and GOLD drop the first tokens of long completions whose prompt is shorter than others of the micro-batch",
    affected=(("0.11.0", "1.7.0"),),
    trigger=(
        {
            "objective": OF_DATASET,
            "completions": ("dataset",),
            "batch": ("ragged", "prompted", "shuffled"),
            "parts": {"max": 4},
            "together": {"min": 2},
        },
    ),
    signature=("dropped", "re-weighted", "loss", "unexplained", "scaled"),
    links=("https://github.com/huggingface/trl/pull/6006",),
    cell="trl-llama.lm-W1-K1-objective:gkd-batch:prompted",
    measured={
        "trl-llama.lm-W1-K1-objective:gkd-batch:prompted [0.11.4]": 0.272,
        "trl-neox.lm-W1-K1-objective:gkd-batch:prompted [0.15.2]": 0.169,
        "trl-neox.lm-W1-K1-objective:gkd-batch:prompted [0.16.1]": 0.169,
        "trl-neox.lm-W1-K1-objective:gkd-batch:prompted [1.5.0]": 0.169,
        "trl-neox.lm-W1-K1-objective:gkd-batch:prompted [1.6.0]": 0.169,
        "trl-neox.lm-W1-K1-objective:gkd-batch:prompted [1.7.0]": 4.9e-07,
        "trl-neox.lm-W1-K1-objective:gkd [0.25.1]": 0.206,
        "trl-neox.lm-W1-K1-objective:gold-batch:prompted [1.0.0]": 0.169,
        "trl-neox.lm-W1-K1-objective:gold-batch:prompted [1.6.0]": 0.169,
    },
    details="3 of 40 tokens without weight in that cell. One sample per micro-batch is right.",
)
