"""With dynamic batches and ZeRO 1 or 2 the actor's step is made of its last micro-batch alone.

Every micro-batch's backward counts as the end of an accumulation (see ``_dynamic``); DeepSpeed's stages 1 and 2 then put their averaged
gradients in the place of those of the micro-batch before. Stages 0 and 3 add. Others met it as an error:
https://github.com/OpenRLHF/OpenRLHF/issues/1131
"""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._dynamic import DROPPED, bounded

ADVISORY = Advisory(
    id="truestep-2026-80",
    framework="openrlhf",
    title="Dynamic batches with ZeRO 1 or 2: only the last micro-batch of a step trains the actor",
    affected=(("0.10.2", None),),
    trigger=({**DROPPED, "model": ("llama.lm",)},),
    signature=("dropped", "re-weighted", "scaled", "unexplained", "norm"),
    links=(
        "https://github.com/OpenRLHF/OpenRLHF/pull/1078",
        "https://github.com/OpenRLHF/OpenRLHF/issues/1131",
        "https://deepspeed.readthedocs.io/en/latest/training.html",
    ),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic",
    patch="truestep-2026-80",
    measured={},
)

PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.ray.ppo_actor",
    around={"ActorPPOTrainer.training_step": bounded("actor", 2)},
    relies_on=(
        "ActorPPOTrainer.training_step",
        "ActorPPOTrainer.ppo_train",
        "openrlhf.trainer.ppo_utils.replay_buffer:NaiveReplayBuffer.setup_dynamic_batch",
    ),
    fingerprints={"0" * 64: "0"},
)
