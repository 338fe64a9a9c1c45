"""From 0.6.1 to 0.6.4 ``--multiturn`` without packing trains the last answer of a conversation alone.

Its ranges of answers are read in the branch for packed samples only (openrlhf/trainer/sft_trainer.py of those releases). No report
is known; 0.7.0 masks by them in either case.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-77",
    framework="openrlhf",
    title="--multiturn without --packing_samples trains the last answer alone",
    affected=(("0.6.1", "0.7.0"),),
    trigger=({"framework": ("openrlhf",), "objective": ("turns",)},),
    signature=("misaligned", "re-weighted", "dropped", "loss", "norm", "unexplained"),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/v0.6.4/openrlhf/trainer/sft_trainer.py",),
    cell="openrlhf-llama.lm-W1-K1-objective:turns",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:turns [0.6.4]": 3.19,
        "openrlhf-llama.lm-W1-K1-objective:turns [0.9.0]": 7.6e-07,
    },
    details="The gradient of 0.6.1 is that of the last answer and its end to 8e-7; that of 0.6.4 begins one token late besides (openrlhf-781).",
)
