"""Prompts are padded on the left and scored without position ids.

GRPO and RLOO call the model with ``attention_mask`` alone, so a row's tokens stand as many positions too far to the right as it is
padded; ``generate`` counts positions from the mask. Rotary and relative positions do not see the shift. It changes every
log-probability of models that do: learned positions (GPT-2, GPT-Neo, GPT BigCode, BioGPT, XGLM, CTRL) and a norm of queries and
keys behind the rotation (HunYuan, StableLM). For GRPO and RLOO no report is known to us; the same in other trainers:
https://github.com/huggingface/trl/issues/6800.
"""

from __future__ import annotations

from ..advisory import Advisory

#: heads whose logits depend on where a sequence starts, and that do not count from the attention mask themselves
ABSOLUTE = ("gpt2.lm", "bigcode.lm", "openai.lm", "ctrl.lm", "gpt_neo.lm", "biogpt.lm", "xglm.lm", "hunyuan.lm", "stablelm.lm")
ONLINE = (
    "bnpo", "cispo", "dapo", "dapo_cut", "dapo_fresh", "dapo_kl_corrected", "dapo_rewards", "dr_grpo", "dr_grpo_fresh", "grpo",
    "grpo_cut", "grpo_delta", "grpo_fresh", "grpo_kl", "grpo_kl_fresh", "grpo_temperature", "gspo", "luspo", "luspo_kl", "rloo",
    "rloo_fresh", "rloo_rewards", "sapo", "vespo",
)  # fmt: skip

ADVISORY = Advisory(
    id="truestep-2026-40",
    framework="trl",
    title="GRPO and RLOO score left-padded prompts at shifted positions",
    affected=(("0.15.0", None),),
    trigger=({"objective": ONLINE, "model": ABSOLUTE, "batch": ("ragged", "prompted", "shuffled")},),
    signature=("unexplained", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/grpo_trainer.py",
        "https://github.com/huggingface/trl/issues/6800",
    ),
    cell="trl-gpt2.lm-W1-K4-objective:grpo_fresh",
    measured={
        "trl-gpt2.lm-W1-K4-objective:grpo_fresh [0.15.2]": 0.518,
        "trl-gpt2.lm-W1-K4-objective:dapo_fresh [0.25.1]": 1.02,
        "trl-gpt2.lm-W1-K2-objective:dapo_fresh [1.16.0]": 1.02,
        "trl-hunyuan.lm-W1-K2-objective:dapo_fresh [1.16.0]": 0.881,
        "trl-gpt2.lm-W1-K4-objective:rloo_fresh [1.16.0]": 0.906,
        "trl-gpt2.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 8.6e-07,
    },
    details="One sample per micro-batch does not help: the whole generation batch is padded to one length. Prompts of one length do.",
)
