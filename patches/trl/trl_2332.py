"""DPO cut off the last token of the longest sequence of a micro-batch.

https://github.com/huggingface/trl/pull/2332. After the prompts were moved to the left, the columns that had become empty
were removed, and one more with them: the end-of-sequence token of the longest sequence.
"""

from __future__ import annotations

from ..advisory import Advisory

DPO = (
    "dpo_sigmoid", "dpo_hinge", "dpo_ipo", "dpo_exo_pair", "dpo_nca_pair", "dpo_robust", "dpo_sppo_hard", "dpo_aot",
    "dpo_aot_unpaired", "dpo_apo_zero", "dpo_apo_down",
)  # fmt: skip

ADVISORY = Advisory(
    id="trl-2332",
    framework="trl",
    title="DPO loses the last token of the longest sequence of a micro-batch",
    affected=(("0.12.0", "0.13.0"),),
    trigger=(
        {"objective": DPO, "parts": {"min": 4}, "size": (0,)},
        {"objective": DPO, "parts": {"min": 2}, "steps": {"min": 2}, "size": (0,)},
        {"objective": DPO, "size": (2,)},
    ),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/trl/pull/2332",),
    cell="trl-llama.lm-W1-K1b2-objective:dpo_sigmoid",
    measured={
        "trl-llama.lm-W1-K1-objective:dpo_sigmoid [0.12.2]": 7.4e-07,
        "trl-llama.lm-W1-K1b8-objective:dpo_sigmoid [0.12.2]": 6.7e-07,
        "trl-llama.lm-W1-K1b2-objective:dpo_sigmoid [0.12.2]": 0.517,
        "trl-llama.lm-W1-K1b2-objective:dpo_sigmoid [0.13.0]": 7e-07,
    },
    details=(
        "It needs a micro-batch in which no sequence has both the longest prompt and the longest completion: almost every one "
        "in practice, the smaller the likelier. What is lost is what teaches the model to stop."
    ),
)
