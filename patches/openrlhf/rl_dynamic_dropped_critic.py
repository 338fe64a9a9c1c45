"""With dynamic batches and ZeRO 1 or 2 the critic's step is made of its last micro-batch alone, as the actor's is (truestep-2026-80)."""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._dynamic import DROPPED, bounded
from .rl_dynamic_dropped import ADVISORY as ACTOR

ADVISORY = Advisory(
    id="truestep-2026-80-critic",
    framework="openrlhf",
    title="Dynamic batches with ZeRO 1 or 2: only the last micro-batch of a step trains the critic",
    affected=ACTOR.affected,
    trigger=({**DROPPED, "model": ("llama.value",)},),
    signature=ACTOR.signature,
    links=ACTOR.links,
    cell="openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic",
    patch="truestep-2026-80-critic",
    measured={
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic [0.9.0]": 1.04,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic [0.10.2]": 1.04,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic [0.10.3]": 1.02,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic [0.10.4]": 1.02,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic [0.11.2]": 1.02,
    },
    details="The ranges of DeepSpeed are the actor's.",
)

PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.ray.ppo_critic",
    around={"CriticPPOTrainer.training_step": bounded("critic", 1)},
    relies_on=(
        "CriticPPOTrainer.training_step",
        "CriticPPOTrainer.ppo_train",
        "openrlhf.trainer.ppo_utils.replay_buffer:NaiveReplayBuffer.setup_dynamic_batch",
    ),
    fingerprints={
        "ce0e3a4ca3dc602886d8fbaef9e2ced35fbb9643482e347df8eb23807a17c91c": "0.9.0",
        "bf3192392e3789086b032b1c8405821450ad1a5adcad816539ebce1dfdfb8407": "0.10.2",
        "9406abe25369c33d3e71f7ce70532be98803357f1fe3c0dc34da2c11ce1afda1": "0.10.3",
        "6a779be6be0b539bdeab973061118178e47bf6ced9d94f3e39eedd33291dbcb4": "0.10.4",
        "3db9f908211a56ba0dfc7d6f12caf3c28e59f4508935b6b7bffcc3512e66d901": "0.11.0 .. 0.11.2",
    },
)
