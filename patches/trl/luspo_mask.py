"""LUSPO's aggregation uses the completion mask as a length only: with a per-token term padding is in its loss.

``mean(x * length)`` instead of ``mean(sum(x * mask))`` over x of [B, T]; the two are alike only while x is [B, 1], that
is without a divergence from the reference. Cured upstream in 1.10.0 (https://github.com/huggingface/trl/pull/6654).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-6654",
    framework="trl",
    title="GRPO's luspo with beta > 0 averages over padding",
    affected=(("0.28.0", "1.10.0"),),
    trigger=({"objective": ("luspo_kl",)},),
    signature=("unexplained", "re-weighted", "loss"),
    links=("https://github.com/huggingface/trl/pull/6654",),
    cell="trl-neox.lm-W1-K4-objective:luspo_kl",
    measured={
        "trl-neox.lm-W1-K1-objective:luspo_kl [0.29.1]": 0.733,
        "trl-neox.lm-W1-K4-objective:luspo_kl [0.29.1]": 0.733,
        "trl-neox.lm-W1-K4-objective:luspo_kl [1.9.2]": 0.733,
        "trl-neox.lm-W1-K4-objective:luspo_kl [1.10.0]": 3.8e-07,
    },
)
