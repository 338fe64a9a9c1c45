"""A*-PO: left-padded prompts are scored without position ids, and so at shifted positions.

What ``left_padding.py`` says of GRPO and ``trl_6800.py`` of online DPO; no report for this trainer is known to us.
"""

from __future__ import annotations

from ..advisory import Advisory
from .left_padding import ABSOLUTE

ADVISORY = Advisory(
    id="truestep-2026-72",
    framework="trl",
    title="A*-PO scores left-padded prompts at shifted positions",
    affected=(("1.9.2", None),),
    trigger=({"objective": ("a2po",), "model": ABSOLUTE, "batch": ("ragged", "prompted", "shuffled"), "together": {"min": 2}},),
    signature=("unexplained", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/a2po/a2po_trainer.py",
        "https://github.com/huggingface/trl/issues/6800",
    ),
    cell="trl-gpt2.lm-W1-K1-objective:a2po",
    measured={
        "trl-gpt2.lm-W1-K1-objective:a2po [1.9.2]": 1.2,
        "trl-gpt2.lm-W1-K1-objective:a2po [1.16.0]": 1.18,
        "trl-gpt2.lm-W1-K1-objective:a2po-batch:equal [1.16.0]": 5.6e-07,
        "trl-neox.lm-W1-K2x3-objective:a2po [1.16.0]": 8.5e-07,
    },
)
