"""GKD, GOLD and DistillationTrainer run student and teacher on left-padded sequences without position ids.

As in GRPO and RLOO (``left_padding.py``): the tokens of a row stand as many positions too far to the right as it is padded.
Of no consequence where positions are relative; where they are learned, or queries and keys are normalised behind the
rotation, both distributions are others than those of the sequence. For these trainers no report is known to us; the same
elsewhere: https://github.com/huggingface/trl/issues/6800.
"""

from __future__ import annotations

from ..advisory import Advisory
from .gkd_normalisation import GKD
from .left_padding import ABSOLUTE

DISTIL = ("distil", "distil_forward", "distil_skewed", "distil_temperature")
UNEQUAL = ("ragged", "prompted", "shuffled")

ADVISORY = Advisory(
    id="truestep-2026-62",
    framework="trl",
    title="GKD, GOLD and DistillationTrainer see left-padded sequences at shifted positions",
    affected=(("0.11.0", None),),
    trigger=(
        {"objective": GKD, "model": ABSOLUTE, "batch": UNEQUAL, "parts": {"max": 4}, "together": {"min": 2}},
        {"objective": (*DISTIL, "gold"), "model": ABSOLUTE, "batch": UNEQUAL, "together": {"min": 2}},
    ),
    signature=("unexplained", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/gkd/gkd_trainer.py",
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/distillation_trainer.py",
        "https://github.com/huggingface/trl/issues/6800",
    ),
    cell="trl-gpt2.lm-W1-K1-objective:gkd",
    measured={
        "trl-gpt2.lm-W1-K1-objective:gkd [0.11.4]": 0.846,
        "trl-gpt2.lm-W1-K1-objective:gkd [0.16.1]": 0.846,
        "trl-gpt2.lm-W1-K1-objective:gkd [1.9.2]": 0.673,
        "trl-gpt2.lm-W1-K4-objective:gkd [1.16.0]": 0.595,
        "trl-hunyuan.lm-W1-K2-objective:gkd [1.16.0]": 0.955,
        "trl-gpt2.lm-W1-K1-objective:gold [1.0.0]": 0.846,
        "trl-gpt2.lm-W1-K1-objective:gold [1.16.0]": 0.695,
        "trl-gpt2.lm-W1-K4-objective:distil [1.10.0]": 2.09,
        "trl-gpt2.lm-W1-K4-objective:distil [1.16.0]": 2.09,
        "trl-hunyuan.lm-W1-K2-objective:distil [1.16.0]": 0.809,
        "trl-gpt2.lm-W1-K1-objective:gkd-batch:equal [1.16.0]": 3.1e-07,
        "trl-gpt2.lm-W1-K1-objective:distil-batch:equal [1.16.0]": 2.7e-07,
        "trl-gpt2.lm-W1-K16-objective:gkd [1.16.0]": 3.9e-07,
    },
    details="DistillationTrainer and GOLD pad a whole generation batch to one length; GKD a micro-batch, so one sample in each is right.",
)
