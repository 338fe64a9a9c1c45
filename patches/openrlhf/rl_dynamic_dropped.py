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
    affected=(("0.9.0", None),),
    trigger=({**DROPPED, "model": ("llama.lm",)},),
    signature=("dropped", "re-weighted", "scaled", "unexplained", "norm"),
    links=(
        "https://github.com/OpenRLHF/OpenRLHF/pull/1078",
        "https://github.com/OpenRLHF/OpenRLHF/issues/1131",
        "https://deepspeed.readthedocs.io/en/latest/training.html",
    ),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic",
    patch="truestep-2026-80",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic [0.9.0]": 1.04,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic [0.10.2]": 1.04,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic [0.10.3]": 1.03,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic [0.10.4]": 1.03,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic [0.11.2]": 1.03,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:1 [0.11.2]": 1.03,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3 [0.11.2]": 1.1e-06,
    },
    details="Alone (openrlhf_dynamic_batches.py) DeepSpeed 0.16.7 to 0.17.3 add, 0.17.6 to 0.18.2 fail loudly, 0.18.3 to 0.19.7 keep the last.",
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
    fingerprints={
        "a7054ea9571e5546428a786fa699a3aea034149d2415f3c359a6f4f61dc861af": "0.9.0",
        "c5c232da84cf2e8747c4e40bc2910a2adcff92ac9bcdae55d11312d1dabfd51e": "0.10.2",
        "8a5eb06225427299583fef6be73a85634fe7cdf3ebc37cbbfab73832c924d90b": "0.10.3",
        "0e51d36a1fc01e35dbb0e8ce4f9868ab27dc331c7a742b115bbd8339f5584262": "0.10.4, 0.11.0",
        "aa0a8df9a960b48f423739c5d010e712a5dd25932efd07a6235071cdae15aadb": "0.11.1",
        "e9187f8405941fa966963c5692a6341f05ed9897b926f79d268ae953541cb054": "0.11.2",
    },
)
