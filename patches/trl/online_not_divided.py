"""Online DPO, XPO (and Nash-MD, which has the same lines): gradients too large by the accumulation steps.

These trainers have a ``training_step`` of their own that hands its loss to ``accelerator.backward`` as it is and divides what it
returns, which is logged, by ``gradient_accumulation_steps``. That left the division to accelerate, as the Trainer did up to
transformers 4.46.1; since 4.46.2 the Trainer tells accelerate that there is one step and divides by itself, before backward. What
https://github.com/huggingface/trl/pull/2615 mended in DPO is still so here; no report of it is known to us. In a short last
window the loss that is logged is too small besides: it is divided by the steps that were asked for.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-70",
    framework="trl",
    title="Online DPO and XPO: gradients times gradient_accumulation_steps with transformers 4.46.2 and later",
    affected=(("0.12.0", None),),
    trigger=({"objective": ("online_dpo", "online_dpo_ipo", "xpo"), "K": {"min": 2}},),
    signature=("scaled", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/online_dpo/online_dpo_trainer.py",
        "https://github.com/huggingface/transformers/pull/34511",
        "https://github.com/huggingface/trl/pull/2615",
    ),
    cell="trl-llama.lm-W1-K4-objective:online_dpo",
    measured={
        "trl-llama.lm-W1-K4-objective:online_dpo [0.12.2]": 3.0,  # with transformers 4.46.2; with 4.46.0 it passes
        "trl-llama.lm-W1-K4-objective:xpo [0.12.2]": 3.0,
        "trl-llama.lm-W1-K4-objective:online_dpo [0.15.2]": 3.0,
        "trl-llama.lm-W1-K4-objective:xpo [0.15.2]": 3.0,
        "trl-llama.lm-W1-K4-objective:online_dpo [0.25.1]": 3.0,
        "trl-llama.lm-W1-K4-objective:xpo [0.25.1]": 3.0,
        "trl-llama.lm-W1-K4-objective:online_dpo [0.29.1]": 3.0,
        "trl-llama.lm-W1-K4-objective:xpo [0.29.1]": 3.0,
        "trl-llama.lm-W1-K4-objective:online_dpo [1.9.2]": 3.0,
        "trl-llama.lm-W1-K4-objective:online_dpo [1.14.0]": 3.0,
        "trl-llama.lm-W1-K1-objective:online_dpo [1.16.0]": 7e-07,
        "trl-llama.lm-W1-K4-objective:online_dpo [1.16.0]": 3.0,
        "trl-neox.lm-W2-K4-objective:online_dpo [1.16.0]": 3.0,
    },
    details="The loss that is logged is right in full windows: only a gradient, a norm or an update shows it, and Adam's first step hides it.",
)
