"""The policy_loss that train_ppo_ray logs is weighted by tokens twice from 0.10.4 on.

Since https://github.com/OpenRLHF/OpenRLHF/pull/1249 the loss of a micro-batch is its tokens' sum over the tokens of the whole step, times
the number of micro-batches: the step's loss is their plain mean. The trainer still takes their mean weighted by tokens, which was right
for means over a micro-batch's own. The divergence and the entropy that are logged are weighted alike; the step is right.
"""

from __future__ import annotations

from ..advisory import Advisory
from .rl_actor_mean_of_means import FIXED, TOKENS

ADVISORY = Advisory(
    id="truestep-2026-82",
    framework="openrlhf",
    title="The policy_loss that is logged weighs a micro-batch by its tokens twice",
    affected=(("0.10.4", None),),
    trigger=({**FIXED, "objective": (*TOKENS, "gspo"), "loss": ("logged",), "K": {"min": 2}},),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-loss:logged",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-loss:logged [0.11.2]": 0.03,
        "openrlhf-llama.lm-W1-K8-objective:ppo-batch:prompted-loss:logged [0.11.2]": 0.33,
        "openrlhf-llama.lm-W1-K4-objective:ppo_k2-batch:prompted-loss:logged [0.11.2]": 0.028,
        "openrlhf-llama.lm-W1-K4-objective:gspo-batch:prompted-loss:logged [0.11.2]": 0.0029,
    },
    details="No report is known. The critic's log is a plain mean over micro-batches and right.",
)
