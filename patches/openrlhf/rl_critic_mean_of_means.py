"""Up to 0.10.3 the critic of train_ppo_ray averages every micro-batch over its own tokens, then the micro-batches.

https://github.com/OpenRLHF/OpenRLHF/pull/1249 (0.10.4) divides by the tokens of the whole optimizer step; before 0.7 the objective is
a mean over responses, which the mean over micro-batches is too.
"""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._rl_window import windowed
from .rl_actor_mean_of_means import FIXED

MODULE = "openrlhf.trainer.ray.ppo_critic"

ADVISORY = Advisory(
    id="openrlhf-1249-critic",
    framework="openrlhf",
    title="A mean of means in the critic: tokens of a micro-batch that has few of them weigh more",
    affected=(("0.7.0", "0.10.4"),),
    trigger=({**FIXED, "objective": ("ppo_value", "ppo_value_gae", "ppo_value_gae_turns"), "K": {"min": 2}},),
    signature=("re-weighted", "scaled", "unexplained", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted",
    patch="openrlhf-1249-critic",
    measured={
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted [0.7.0.post1]": 0.13,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted [0.9.0]": 0.13,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted [0.10.2]": 0.13,
        "openrlhf-llama.value-W1-K2-objective:ppo_value-batch:prompted [0.10.3]": 0.051,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted [0.10.3]": 0.13,
        "openrlhf-llama.value-W1-K8-objective:ppo_value-batch:prompted [0.10.3]": 0.69,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted [0.11.2]": 7.3e-07,
    },
    details="Patched, it was never run with packed samples, ring attention or a router's loss: there the patch changes nothing. "
    "With the DeepSpeed that 0.10.2 and 0.10.3 pin (0.18.9), deepspeed-8245 shows beside it.",
)

PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={
        "CriticPPOTrainer.ppo_train": windowed(ADVISORY.id, MODULE, "critic"),
    },
    relies_on=(
        "CriticPPOTrainer.ppo_train",
        "CriticPPOTrainer.training_step",
        "openrlhf.models.loss:ValueLoss.forward",
    ),
    fingerprints={
        "42f2b568e86310e8bf4e52a7eccea4e926a943002bb1a98016fb5a7dae021da5": "0.7.0.post1",
        "e72cfafbbc6138a26592a40a129fac54c6b252f10d96146ac454dbdf3ac8781a": "0.9.0",
        "155eac33a45038d773251a51e31188f85729d1a62a1f787ee5dda1497296703e": "0.10.2",
        "aabbd6ea9a77e4ef79a467ec50ee5c6be63fc3c708649d524a5810f87d6ef596": "0.10.3",
    },
)
