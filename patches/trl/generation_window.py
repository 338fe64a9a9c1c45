"""The token count that dapo, cispo and vespo divide by is that of a generation batch, not of an accumulation window.

``num_items_in_batch`` is counted when completions are generated. Where ``steps_per_generation`` differs from
``gradient_accumulation_steps`` the step is scaled by their ratio (https://github.com/huggingface/trl/issues/5619). Since 1.9.1
(https://github.com/huggingface/trl/pull/6024) the count is multiplied by that ratio: right only where every
window has as many tokens as the mean of its generation batch. The documentation of ``loss_type`` says the number
of active tokens in the global accumulated batch.
"""

from __future__ import annotations

from ..advisory import Advisory

#: objectives that are normalised by that count
COUNTED = ("dapo", "dapo_fresh", "dapo_cut", "dapo_rewards", "dapo_kl_corrected", "dapo_router", "cispo", "vespo")

SCALED = Advisory(
    id="trl-5619",
    framework="trl",
    title="GRPO's dapo, cispo and vespo divide by the tokens of a generation batch instead of an accumulation window",
    affected=(("0.22.0", "1.9.1"),),
    trigger=({"objective": COUNTED, "generation": ("half", "double")},),
    signature=("scaled", "re-weighted", "loss"),
    links=("https://github.com/huggingface/trl/issues/5619", "https://github.com/huggingface/trl/pull/6024"),
    cell="trl-neox.lm-W1-K4x2-objective:dapo-generation:double",
    measured={
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [0.25.1]": 0.5,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [1.9.0]": 0.5,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.9.0]": 1.03,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [1.9.1]": 4.7e-07,
    },
    details="x 2 where a window has two generation batches, x 1/2 where a generation batch has two windows.",
)

UNEVEN = Advisory(
    id="truestep-2026-41",
    framework="trl",
    title="GRPO's dapo, cispo and vespo estimate the tokens of an accumulation window from its generation batches",
    affected=(("1.9.1", None),),
    trigger=(
        {"objective": COUNTED, "generation": ("half",)},
        # the first six windows of a cell have, two by two, as many tokens as each other
        {"objective": COUNTED, "generation": ("double",), "steps": {"min": 7}},
    ),
    signature=("re-weighted", "scaled", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/grpo_trainer.py",
        "https://huggingface.co/docs/trl/v1.16.0/en/grpo_trainer",
    ),
    cell="trl-neox.lm-W1-K4x2-objective:dapo-generation:half",
    measured={
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.9.1]": 0.0823,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.16.0]": 0.0823,
        "trl-neox.lm-W1-K4x8-objective:dapo-generation:double [1.16.0]": 0.0345,
        "trl-neox.lm-W1-K4x2-objective:dapo [1.16.0]": 6.3e-07,
    },
    details="What is left of trl-5619: a mean of means over generation batches. Right with steps_per_generation unset.",
)

ADVISORY = (SCALED, UNEVEN)
