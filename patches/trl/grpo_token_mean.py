"""GRPO takes a mean over the tokens of each micro-batch where a mean over completions is documented.

https://github.com/huggingface/trl/pull/2881 replaced the mean over completions, which the formula of the documentation of
these releases still states (https://github.com/huggingface/trl/blob/v0.16.1/docs/source/grpo_trainer.md), and no argument gives
it back. From 0.17.0 on it is a choice (``loss_type``), documented as such.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-2881",
    framework="trl",
    title="GRPO averages over the tokens of a micro-batch where the mean over completions is documented",
    affected=(("0.16.0", "0.17.0"),),
    trigger=({"objective": ("grpo_fresh", "grpo_kl_fresh", "grpo_temperature")},),
    signature=("re-weighted", "loss"),
    links=(
        "https://github.com/huggingface/trl/pull/2881",
        "https://github.com/huggingface/trl/blob/v0.16.1/docs/source/grpo_trainer.md",
    ),
    cell="trl-neox.lm-W1-K4-objective:grpo_fresh",
    measured={
        "trl-neox.lm-W1-K1-objective:grpo_fresh [0.16.1]": 0.617,
        "trl-neox.lm-W1-K4-objective:grpo_fresh [0.16.1]": 0.595,
        "trl-neox.lm-W1-K4-objective:grpo_fresh [0.15.2]": 3.0e-07,
        "trl-neox.lm-W1-K4-objective:grpo_fresh [0.17.0]": 4.6e-07,
    },
    details="With several micro-batches it is a mean of means, so the step depends on the split as well.",
)
