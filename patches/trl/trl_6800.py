"""Online DPO, XPO: left-padded prompts are scored without position ids, and so at shifted positions.

https://github.com/huggingface/trl/issues/6800, open when 1.16.0 came out. What ``left_padding.py`` says of GRPO holds here too: rotary
and relative positions do not see it, learned positions do, and so does a norm behind the rotation.
"""

from __future__ import annotations

from ..advisory import Advisory
from .left_padding import ABSOLUTE

ADVISORY = Advisory(
    id="trl-6800",
    framework="trl",
    title="Online DPO and XPO score left-padded prompts at shifted positions",
    affected=(("0.12.0", None),),
    trigger=({"objective": ("online_dpo", "online_dpo_ipo", "xpo"), "model": ABSOLUTE, "together": {"min": 2}},),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/trl/issues/6800", "https://github.com/huggingface/trl/pull/6819"),
    cell="trl-gpt2.lm-W1-K1-objective:online_dpo",
    measured={
        "trl-gpt2.lm-W1-K1-objective:online_dpo [0.12.2]": 1.01,
        "trl-gpt2.lm-W1-K1-objective:xpo [0.12.2]": 0.972,
        "trl-gpt2.lm-W1-K1-objective:online_dpo [0.29.1]": 1.01,
        "trl-gpt2.lm-W1-K1-objective:xpo [0.29.1]": 0.972,
        "trl-gpt2.lm-W1-K1-objective:online_dpo [1.9.2]": 1.41,
        "trl-gpt2.lm-W1-K1-objective:online_dpo [1.16.0]": 1.01,
        "trl-neox.lm-W1-K1x3-objective:online_dpo [1.16.0]": 5e-07,
    },
)
