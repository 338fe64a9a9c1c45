"""What GKD divides its loss by: the tokens of a micro-batch, then those of the data set.

Up to 1.6.0 ``compute_loss`` takes ``num_items_in_batch`` and does not use it, so that the Trainer leaves a mean over the
tokens of each micro-batch undivided: https://github.com/huggingface/trl/issues/4719.
https://github.com/huggingface/trl/pull/6006 divides by that count, which is taken from the labels of the data set, before
``training_step`` puts completions of the student or the teacher in their place; of that no report is known to us, but
https://github.com/huggingface/trl/pull/5669, closed unmerged, would have generated first.
DistillationTrainer counts what was generated since https://github.com/huggingface/trl/pull/6478.
"""

from __future__ import annotations

from ..advisory import Advisory

GKD = ("gkd", "gkd_forward", "gkd_reverse", "gkd_skewed")
OF_DATASET = (*GKD, "gold")  # GOLD was built on GKD, and had its bugs

UNDIVIDED = Advisory(
    id="trl-4719",
    framework="trl",
    title="GKD and GOLD: gradients times gradient_accumulation_steps, and a mean of means over micro-batches and ranks",
    affected=(("0.12.0", "1.7.0"),),
    trigger=(
        {"objective": OF_DATASET, "K": {"min": 2}},
        {"objective": OF_DATASET, "world_size": {"min": 2}, "batch": ("ragged", "prompted", "shuffled")},
    ),
    signature=("scaled", "re-weighted", "loss", "unexplained"),
    links=("https://github.com/huggingface/trl/issues/4719", "https://github.com/huggingface/trl/pull/6006"),
    cell="trl-neox.lm-W1-K4-objective:gkd-batch:equal",
    measured={
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [0.11.4]": 2.8e-07,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [0.12.2]": 3.0,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [0.15.2]": 3.0,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [0.22.2]": 3.0,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [0.29.1]": 3.0,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [1.6.0]": 3.0,
        "trl-neox.lm-W1-K4-objective:gkd [0.25.1]": 3.23,
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.0.0]": 3.0,
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.6.0]": 3.0,
        "trl-neox.lm-W2-K1-objective:gkd-batch:equal [1.6.0]": 2.6e-07,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal [1.7.0]": 4.0e-07,
    },
    details="The loss that is logged is right in 0.12 alone. In 0.11 the mean of means is divided by the accumulation steps.",
)

NOT_GENERATED = Advisory(
    id="truestep-2026-60",
    framework="trl",
    title="GKD divides the loss of generated completions by the tokens of the data set's completions",
    affected=(("1.7.0", None),),
    trigger=({"objective": GKD, "completions": ("student", "teacher")},),
    signature=("scaled", "loss", "re-weighted"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/gkd/gkd_trainer.py",
        "https://github.com/huggingface/trl/pull/6006",
        "https://github.com/huggingface/trl/pull/6478",
    ),
    cell="trl-neox.lm-W1-K1-objective:gkd-completions:student",
    measured={
        "trl-neox.lm-W1-K1-objective:gkd-completions:student [1.6.0]": 4.4e-07,
        "trl-neox.lm-W1-K1-objective:gkd-completions:student [1.7.0]": 0.262,
        "trl-neox.lm-W1-K1-objective:gkd-completions:student [1.9.2]": 0.262,
        "trl-neox.lm-W1-K1-objective:gkd-completions:student [1.16.0]": 0.262,
        "trl-neox.lm-W1-K4-objective:gkd-batch:equal-completions:student [1.9.2]": 0.143,
        "trl-llama.lm-W1-K4-objective:gkd-completions:teacher [1.16.0]": 0.262,
    },
    details="x tokens generated / tokens of the data set, another factor in every step. lmbda = 0 without seq_kd is right.",
)

ADVISORY = (UNDIVIDED, NOT_GENERATED)
