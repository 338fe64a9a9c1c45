"""GRPO's log-probabilities are not divided by the temperature that completions are sampled at.

Cured upstream in 0.16.0 (https://github.com/huggingface/trl/pull/3029).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-3029",
    framework="trl",
    title="GRPO trains the policy at temperature 1, whatever temperature it samples at",
    affected=(("0.15.0", "0.16.0"),),
    trigger=({"objective": ("grpo_temperature",)},),
    signature=("unexplained",),
    links=("https://github.com/huggingface/trl/pull/3029",),
    cell="trl-neox.lm-W1-K4-objective:grpo_temperature",
    measured={
        "trl-neox.lm-W1-K1-objective:grpo_temperature [0.15.2]": 0.389,
        "trl-neox.lm-W1-K4-objective:grpo_temperature [0.15.2]": 0.389,
        "trl-neox.lm-W1-K4-objective:grpo_temperature [0.17.0]": 3.1e-07,
    },
    details="At temperature 0.7. The default of those releases is 0.9, so it is wrong by default.",
)
