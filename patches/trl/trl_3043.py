"""GKD's divergence had the weights of student and teacher exchanged in the mixture.

https://github.com/huggingface/trl/pull/3043: M = beta Q + (1 - beta) P where the definition (arXiv 2306.13649, equation 1) has
M = beta P + (1 - beta) Q. At 1/2 it is the same; at 0 and 1 the step was that of the other divergence than documented
(https://github.com/huggingface/trl/blob/v0.15.2/docs/source/gkd_trainer.md: forward near 0, reverse near 1).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-3043",
    framework="trl",
    title="GKD with a beta other than 0.5 minimises another divergence",
    affected=(("0.11.0", "0.16.0"),),
    trigger=({"objective": ("gkd_forward", "gkd_reverse", "gkd_skewed")},),
    signature=("unexplained", "loss"),
    links=(
        "https://github.com/huggingface/trl/pull/3043",
        "https://github.com/huggingface/trl/blob/v0.15.2/docs/source/gkd_trainer.md",
    ),
    cell="trl-neox.lm-W1-K1-objective:gkd_skewed-batch:equal",
    measured={
        "trl-neox.lm-W1-K1-objective:gkd_skewed-batch:equal [0.11.4]": 1.22,
        "trl-neox.lm-W1-K1-objective:gkd_skewed-batch:equal [0.15.2]": 1.19,
        "trl-neox.lm-W1-K1-objective:gkd_forward-batch:equal [0.15.2]": 0.958,
        "trl-neox.lm-W1-K1-objective:gkd_reverse-batch:equal [0.15.2]": 0.598,
        "trl-neox.lm-W1-K1-objective:gkd-batch:equal [0.15.2]": 5.6e-07,
        "trl-neox.lm-W1-K1-objective:gkd_skewed-batch:equal [0.16.1]": 4.6e-07,
    },
)
