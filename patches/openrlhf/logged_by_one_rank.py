"""``loss_mean`` of train_sft is put into the logs after they were averaged over the ranks: it is what rank 0 alone has seen.

https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/sft_trainer.py (SFTTrainer.fit); no report is known.
"""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._log import over_ranks

ADVISORY = Advisory(
    id="truestep-2026-73",
    framework="openrlhf",
    title="The loss_mean that is logged is that of rank 0's samples alone",
    affected=(("0.6.1", None),),
    trigger=(
        {
            "framework": ("openrlhf",),
            "loss": ("logged",),
            "objective": ("response_mean", "whole_mean", "turns"),
            "world_size": {"min": 2},
        },
    ),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/trainer/sft_trainer.py",),
    cell="openrlhf-llama.lm-W2-K4-objective:response_mean-batch:prompted-loss:logged",
    patch="truestep-2026-73",
    measured={
        "openrlhf-llama.lm-W2-K4-objective:response_mean-batch:prompted-loss:logged [0.10.4]": 0.03,
        "openrlhf-llama.lm-W2-K4-objective:response_mean-batch:prompted-loss:logged [0.11.2]": 0.03,
    },
    details="The step is right. Average loss_mean over the ranks before it is put into logs_dict.",
)


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.sft_trainer",
    around={"SFTTrainer.save_logs_and_checkpoints": over_ranks},
    relies_on=("SFTTrainer.fit", "SFTTrainer.save_logs_and_checkpoints"),
    fingerprints={
        "0b7565a1b5ade4c009cfe4a8ebceab4f3d6faea7cff99e63a1a6fbd222638bff": "0.6.1",
        "81c6c3f6b22036bf7d0a92d0fbdbe4c4fe8dcc0131068f06956998351a7fcd03": "0.6.2 .. 0.6.4",
        "616e26c164bb2c5255a51049dd9fc116f84fa8ead68240ca3e5595f772159739": "0.7.0.post1 .. 0.9.0",
        "ffc0388a12c5076861fe0ebd31dcf845b645caa4146cca0453e79ae137b339bd": "0.10.2",
        "8f11628b6c7d87ba381f39b1fba321499d04eb28bff653ea6cccd05e065536cd": "0.10.3",
        "d682307bf3673c89d2652aaa9bb841a1c5e7f6f399d6f42f825fc22c4666c333": "0.10.4",
        "5184779ad3a87b4ad88e1b76da42d528d78a541dbc9fba4bc4536302659d6b75": "0.11.2",
    },
)
