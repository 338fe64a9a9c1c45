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
    measured={},
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
    fingerprints={"0" * 64: "0"},
)
