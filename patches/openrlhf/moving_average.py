"""Up to 0.5 what is logged as ``loss_mean`` is a moving average over micro-batches that begins at 0: no loss of any step.

openrlhf/trainer/{sft,dpo,rm}_trainer.py of 0.5.0; since 0.6.1 it is the mean over the micro-batches of the step.
"""

from __future__ import annotations

from ..advisory import Advisory

_OBJECTIVES = ("response_mean", "whole_mean", "dpo_sigmoid", "dpo_ipo_sum", "dpo_smoothed", "reward", "reward_margin")

ADVISORY = Advisory(
    id="openrlhf-moving-average",
    framework="openrlhf",
    title="loss_mean is a moving average over micro-batches, which begins at 0",
    affected=(("0.5.0", "0.6.1"),),
    trigger=({"framework": ("openrlhf",), "loss": ("logged",), "objective": _OBJECTIVES},),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/v0.5.0/openrlhf/trainer/sft_trainer.py",),
    cell="openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted-loss:logged",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted-loss:logged [0.5.0]": 0.9,
        "openrlhf-llama.lm-W1-K4-objective:dpo_sigmoid-loss:logged [0.5.0]": 0.654,
    },
    details="The release between, 0.6.0, was not run.",
    by_design=True,
)
