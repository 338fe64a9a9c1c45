"""``train_kd`` distils other positions than it trains: one token late up to 0.6, and from 0.7 the last token of the prompt too.

openrlhf/trainer/kd_trainer.py and models/loss.py (KDLoss) of those releases; the command line is gone with 0.9.10. No report is known.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-78",
    framework="openrlhf",
    title="train_kd: the teacher is followed at other positions than those of the response",
    affected=(("0.5.0", "0.9.10"),),
    trigger=({"framework": ("openrlhf",), "objective": ("response_distil",)},),
    signature=("misaligned", "re-weighted", "loss", "norm", "unexplained"),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/v0.9.0/openrlhf/models/loss.py",),
    cell="openrlhf-llama.lm-W1-K1-objective:response_distil-batch:prompted",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:response_distil-batch:prompted [0.5.0]": 0.118,
        "openrlhf-llama.lm-W1-K1-objective:response_distil-batch:prompted [0.6.4]": 0.118,
        "openrlhf-llama.lm-W1-K1-objective:response_distil-batch:prompted [0.9.0]": 0.402,
    },
    details="0.5.0: the distillation alone, one token late. 0.9.0: the last token of the prompt is trained, and one position too many distilled.",
)
