"""train_dpo logs the loss_mean of rank 0 alone, as train_sft does (truestep-2026-73)."""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._log import over_ranks

ADVISORY = Advisory(
    id="truestep-2026-73-dpo",
    framework="openrlhf",
    title="The loss_mean that train_dpo logs is that of rank 0's samples alone",
    affected=(("0.6.1", None),),
    trigger=(
        {
            "framework": ("openrlhf",),
            "loss": ("logged",),
            "objective": ("dpo_sigmoid", "dpo_ipo_sum", "dpo_smoothed"),
            "world_size": {"min": 2},
        },
    ),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/dpo_trainer.py",),
    cell="openrlhf-llama.lm-W2-K4-objective:dpo_sigmoid-loss:logged",
    patch="truestep-2026-73-dpo",
    measured={
        "openrlhf-llama.lm-W2-K4-objective:dpo_sigmoid-loss:logged [0.6.4]": 0.229,
        "openrlhf-llama.lm-W2-K4-objective:dpo_sigmoid-loss:logged [0.11.2]": 0.229,
    },
    details="The step is right.",
)

PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.dpo_trainer",
    around={"DPOTrainer.save_logs_and_checkpoints": over_ranks},
    relies_on=("DPOTrainer.fit", "DPOTrainer.save_logs_and_checkpoints"),
    fingerprints={
        "61a4dd04c032f619bec01b5fae83dbb5ca950c719eb194d1cfd2ee8bf36d89dd": "0.6.4",
        "2745e377713a0e0d19c58bdef191f405fe95043ed6eb4cea1b67825f024414be": "0.7.0.post1 .. 0.9.0",
        "26903ee425756b30bc37e28d10a0d0a3f903a0c5d77911c938b716fad10a5bc8": "0.10.2 .. 0.11.2",
    },
)
