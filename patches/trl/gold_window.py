"""GOLD divides by the tokens of a window as often as it has micro-batches, and by those of all ranks.

With every micro-batch its loader gives the whole generation batch of the window, of which only the first is looked at.
The Trainer counts ``num_items_in_batch`` over all of them: K times too many, and since
https://github.com/huggingface/trl/pull/6006 the loss is divided by it. As in GKD (``gkd_ranks.py``) nothing makes up for
the mean over ranks. For GOLD no report is known to us; the same count in DistillationTrainer before 1.10:
https://github.com/huggingface/trl/pull/6452, https://github.com/huggingface/trl/pull/6478.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-64",
    framework="trl",
    title="GOLD: gradients divided by gradient_accumulation_steps and by the number of ranks once too often",
    affected=(("1.7.0", None),),
    trigger=({"objective": ("gold",), "K": {"min": 2}}, {"objective": ("gold",), "world_size": {"min": 2}}),
    signature=("scaled", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/gold/gold_trainer.py",
        "https://github.com/huggingface/trl/pull/6006",
        "https://github.com/huggingface/trl/pull/6452",
    ),
    cell="trl-neox.lm-W1-K4-objective:gold-batch:equal",
    measured={
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.7.0]": 0.75,
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.9.2]": 0.75,
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.14.0]": 0.75,
        "trl-neox.lm-W1-K4-objective:gold-batch:equal [1.16.0]": 0.75,
        "trl-neox.lm-W1-K4x3-objective:gold [1.16.0]": 0.75,
        "trl-neox.lm-W2-K1-objective:gold [1.16.0]": 0.5,
        "trl-neox.lm-W2-K4-objective:gold [1.16.0]": 0.875,
        "trl-neox.lm-W1-K1-objective:gold [1.16.0]": 5.6e-07,
    },
    details="The loss that is logged is divided too. Run with the divergence of a shared vocabulary, on completions of the data set.",
)
