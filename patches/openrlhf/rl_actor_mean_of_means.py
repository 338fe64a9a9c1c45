"""Up to 0.10.3 the actor of train_ppo_ray averages every micro-batch over its own tokens, then the micro-batches.

https://github.com/OpenRLHF/OpenRLHF/pull/1249 (0.10.4) divides by the tokens of the whole optimizer step; before 0.7 the objective is
a mean over responses, which the mean over micro-batches is too.
"""

from __future__ import annotations

from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._rl_window import windowed

MODULE = "openrlhf.trainer.ray.ppo_actor"
TOKENS = (
    "ppo", "ppo_dual", "ppo_k1", "ppo_k2", "ppo_k3", "ppo_entropy", "ppo_tis", "ppo_icepop", "ppo_mask_tis", "dapo",
    "ppo_gae", "ppo_gae_centered", "ppo_gae_turns", "ppo_reinforce", "ppo_reinforce_baseline", "ppo_rloo", "ppo_group_norm",
    "ppo_dr_grpo", "ppo_overlong",
)  # fmt: skip
FIXED: dict[str, Any] = {"framework": ("openrlhf",), "batching": ("fixed",), "batch": {"not": ("equal",)}}

ADVISORY = Advisory(
    id="openrlhf-1249-actor",
    framework="openrlhf",
    title="A mean of means in the actor: tokens of a micro-batch that has few of them weigh more",
    affected=(("0.7.0", "0.10.4"),),
    trigger=({**FIXED, "objective": TOKENS, "K": {"min": 2}},),
    signature=("re-weighted", "scaled", "unexplained", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted",
    patch="openrlhf-1249-actor",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted [0.7.0.post1]": 0.15,
        "openrlhf-llama.lm-W1-K2-objective:ppo-batch:prompted [0.7.0.post1]": 0.058,
        "openrlhf-llama.lm-W1-K8-objective:ppo-batch:prompted [0.7.0.post1]": 0.41,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted [0.9.0]": 0.15,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted [0.10.2]": 0.15,
        "openrlhf-llama.lm-W1-K8-objective:ppo-batch:prompted [0.10.2]": 0.41,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted [0.10.3]": 0.15,
        "openrlhf-llama.lm-W1-K8-objective:ppo-batch:prompted [0.10.3]": 0.41,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted [0.11.2]": 8.8e-07,
    },
    details=(
        "Patched, it was never run with packed samples, ring attention or a router's loss: there the patch leaves everything as it is, "
        "as it does with GSPO, and in 0.7 with a divergence in the loss, which are means over responses."
    ),
)

PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={
        "ActorPPOTrainer.ppo_train": windowed(ADVISORY.id, MODULE, "actor"),
    },
    relies_on=(
        "ActorPPOTrainer.ppo_train",
        "ActorPPOTrainer.ppo_train_actor",
        "ActorPPOTrainer.training_step",
        "openrlhf.models.loss:PolicyLoss.forward",
    ),
    fingerprints={
        "7dfd0ffc60d941ca9b21a2862cc898e2081f57f578255f73caaf56e748261842": "0.7.0.post1",
        "eb91f7a0e70fe5b099070431de56d0d1e0a3611a563a9dbff39e32a8701d44cc": "0.9.0",
        "40338d1c14ba21f0554c4831d3b5fa9e02833f7121e2918c8d24dcf97dfa6cba": "0.10.2",
        "39bb563dbd2dd7f33e36b104a5732d4960d3429d0fec473a574aa6696a0fef9d": "0.10.3",
    },
)
