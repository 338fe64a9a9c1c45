"""Completions that were cut off have no loss but still count in what dapo, cispo and vespo divide by.

With ``mask_truncated_completions``. Cured upstream in 1.9.0 (https://github.com/huggingface/trl/pull/6439).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-6439",
    framework="trl",
    title="GRPO's token count includes the truncated completions that it was told to leave out",
    affected=(("0.22.0", "1.9.0"),),
    trigger=({"objective": ("dapo_cut",)},),
    signature=("scaled", "loss"),
    links=("https://github.com/huggingface/trl/issues/6369", "https://github.com/huggingface/trl/pull/6439"),
    cell="trl-neox.lm-W1-K4-objective:dapo_cut",
    measured={
        "trl-neox.lm-W1-K4-objective:dapo_cut [0.22.2]": 0.267,
        "trl-neox.lm-W1-K4-objective:dapo_cut [0.29.1]": 0.267,
        "trl-neox.lm-W1-K4-objective:dapo_cut [1.8.0]": 0.267,
        "trl-neox.lm-W1-K4-objective:dapo_cut [1.9.0]": 3.4e-07,
    },
    details="Everything is scaled by the share of tokens that is left (33 of 45 in the first step of the cell).",
)
