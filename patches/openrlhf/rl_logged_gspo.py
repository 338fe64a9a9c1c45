"""GSPO's loss is a mean over responses; in the log of train_ppo_ray up to 0.10.3 a micro-batch weighs as much as its tokens all the same."""

from __future__ import annotations

from ..advisory import Advisory
from .rl_actor_mean_of_means import FIXED

ADVISORY = Advisory(
    id="truestep-2026-82-gspo",
    framework="openrlhf",
    title="The policy_loss that is logged with GSPO weighs responses by the tokens of their micro-batch",
    affected=(("0.10.2", "0.10.4"),),
    trigger=({**FIXED, "objective": ("gspo",), "loss": ("logged",), "K": {"min": 2}},),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.lm-W1-K4-objective:gspo-batch:prompted-loss:logged",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:gspo-batch:prompted-loss:logged [0.10.2]": 0.0029,
        "openrlhf-llama.lm-W1-K4-objective:gspo-batch:prompted-loss:logged [0.10.3]": 0.0029,
    },
    details="No report is known. From 0.10.4 on every objective's is weighted wrongly (truestep-2026-82).",
)
