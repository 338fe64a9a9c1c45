"""ORPO was trained with gradients too large by the accumulation steps until 0.20.

https://github.com/huggingface/trl/pull/3716: what trl-2615 mended in DPO, CPO and KTO was forgotten in ORPO.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="trl-3716",
    framework="trl",
    title="ORPO: gradients times gradient_accumulation_steps with transformers 4.46 to 4.49",
    affected=(("0.12.0", "0.20.0"),),
    trigger=({"objective": ("orpo",), "K": {"min": 2}},),
    signature=("scaled", "re-weighted", "unexplained", "loss"),
    links=("https://github.com/huggingface/trl/pull/3716",),
    cell="trl-llama.lm-W1-K4-objective:orpo",
    measured={
        "trl-llama.lm-W1-K4x2-objective:orpo [0.12.2]": 3.11,
        "trl-llama.lm-W1-K4x2-objective:orpo [0.15.2]": 3.11,
        "trl-llama.lm-W1-K8-objective:orpo [0.15.2]": 7.6,
        "trl-llama.lm-W1-K4-objective:orpo [0.13.0]": 3.11,
        "trl-llama.lm-W1-K4-objective:orpo [0.19.1]": 0.0576,
        "trl-llama.lm-W1-K4x2-objective:orpo [0.25.1]": 0.0576,
    },
    details=(
        "It takes a Trainer that leaves the division to the loss: red with transformers 4.46.3, 4.47.1 and 4.49.0; 0.19.1 with "
        "transformers 4.53.3 is not too large. What is left in either case, and after the fix, is truestep-2026-20: the "
        "likelihood term is a mean of micro-batch means."
    ),
)
