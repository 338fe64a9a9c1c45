"""DPO, CPO and KTO were trained with gradients too large by the accumulation steps, while the loss logged looked right.

https://github.com/huggingface/trl/pull/2615 (DPO), https://github.com/huggingface/trl/pull/2645 (CPO, SimPO) and
https://github.com/huggingface/trl/pull/2648 (KTO). Since transformers 4.46 the Trainer leaves the division to models that
take ``num_items_in_batch``; these trainers compute a mean of their own and did not say so.
"""

from __future__ import annotations

from ..advisory import Advisory

OBJECTIVES = (
    "dpo_sigmoid", "dpo_hinge", "dpo_ipo", "dpo_exo_pair", "dpo_nca_pair", "dpo_robust", "dpo_sppo_hard", "dpo_aot",
    "dpo_aot_unpaired", "dpo_apo_zero", "dpo_apo_down", "dpo_discopop", "cpo", "simpo", "kto", "kto_apo",
)  # fmt: skip

ADVISORY = Advisory(
    id="trl-2615",
    framework="trl",
    title="DPO, CPO and KTO: gradients times gradient_accumulation_steps with transformers 4.46 and later",
    affected=(("0.12.0", "0.14.0"),),
    trigger=({"objective": OBJECTIVES, "K": {"min": 2}},),
    signature=("scaled",),
    links=(
        "https://github.com/huggingface/trl/pull/2615",
        "https://github.com/huggingface/trl/pull/2645",
        "https://github.com/huggingface/trl/pull/2648",
        "https://github.com/huggingface/transformers/issues/35856",
    ),
    cell="trl-llama.lm-W1-K2-objective:dpo_sigmoid",
    measured={
        "trl-llama.lm-W1-K2-objective:dpo_sigmoid [0.12.2]": 1.0,
        "trl-llama.lm-W1-K4x2-objective:simpo [0.12.2]": 3.0,
        "trl-llama.lm-W1-K8-objective:simpo [0.12.2]": 7.0,
        "trl-llama.lm-W1-K4x2-objective:kto_apo [0.12.2]": 3.0,
        "trl-llama.lm-W1-K8-objective:kto_apo [0.12.2]": 7.0,
        "trl-llama.lm-W1-K1-objective:simpo [0.12.2]": 6e-07,
        "trl-llama.lm-W1-K4-objective:dpo_sigmoid [0.13.0]": 3.0,
        "trl-llama.lm-W1-K4-objective:kto_apo [0.13.0]": 3.0,
        "trl-llama.lm-W1-K4-objective:dpo_sigmoid [0.11.4]": 7e-07,
    },
    details=(
        "The loss that is logged is right: only a gradient, a norm or an update shows it, and Adam's first step hides it; "
        "so does clipping to a norm that is reached anyway."
    ),
)
