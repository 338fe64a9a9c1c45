"""train_rm logs the loss_mean of rank 0 alone, as train_sft does (truestep-2026-73)."""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._log import over_ranks

ADVISORY = Advisory(
    id="truestep-2026-73-rm",
    framework="openrlhf",
    title="The loss_mean that train_rm logs is that of rank 0's samples alone",
    affected=(("0.6.1", None),),
    trigger=(
        {"framework": ("openrlhf",), "loss": ("logged",), "objective": ("reward", "reward_margin"), "world_size": {"min": 2}},
    ),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/rm_trainer.py",),
    cell="openrlhf-llama.value-W2-K4-objective:reward-loss:logged",
    patch="truestep-2026-73-rm",
    measured={
        "openrlhf-llama.value-W2-K4-objective:reward-loss:logged [0.6.4]": 0.012,
        "openrlhf-llama.value-W2-K4-objective:reward-loss:logged [0.11.2]": 0.012,
    },
    details="The step is right.",
)

PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.rm_trainer",
    around={"RewardModelTrainer.save_logs_and_checkpoints": over_ranks},
    relies_on=("RewardModelTrainer.fit", "RewardModelTrainer.save_logs_and_checkpoints"),
    fingerprints={
        "d73b8b95a3a66add6c6e284d3e4311c2fae32dacc8e00d0be0196ce0c186461d": "0.6.4",
        "b08d675619b317ebf5785be08e489803b2e674efbe32c27240b69b86f9d25f76": "0.7.0.post1 .. 0.9.0",
        "cfcd466610ffe764908f58fa4f8eff39a917dcaa96753a6d82584fb24804d7ab": "0.10.2 .. 0.10.4",
        "93c90dbb96da3bf19b4f3f9ab57ec7aa883b766081a1f678940d5815f2ff865a": "0.11.2",
    },
)
