"""SFT of a mixture of experts: the load-balancing loss counts once per micro-batch and rank, beside a loss divided by the step's items.

The Trainer's fault of https://github.com/huggingface/transformers/issues/48690, which SFTTrainer had for as long as the model or
the Trainer computed its loss. From 1.15.0 on it adds the term itself and averages it over the window.
"""

from __future__ import annotations

from ..advisory import Advisory

_ROUTER = {"framework": ("trl",), "objective": ("router",), "accepts_items": (True,)}

ADVISORY = Advisory(
    id="trl-sft-router",
    framework="trl",
    title="SFT: the router's auxiliary loss times the accumulation steps and the world size",
    affected=(("0.12.0", "1.15.0"),),
    trigger=({**_ROUTER, "K": {"min": 2}}, {**_ROUTER, "world_size": {"min": 2}, "averages": (True,)}),
    signature=("scaled", "loss", "unexplained", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/issues/48690",
        "https://github.com/huggingface/trl/blob/v1.14.0/trl/trainer/sft_trainer.py",
    ),
    cell="trl-mixtral.lm-W1-K4-objective:router-batch:prompted",
    measured={
        "trl-mixtral.lm-W1-K2-objective:router-batch:prompted [0.12.2]": 0.268,
        "trl-mixtral.lm-W1-K2-objective:router-batch:prompted [0.15.2]": 0.268,
        "trl-mixtral.lm-W1-K4-objective:router-batch:prompted [0.29.1]": 0.713,
        "trl-mixtral.lm-W1-K4-objective:router-batch:prompted [1.0.0]": 0.713,
        "trl-mixtral.lm-W1-K4-objective:router-batch:prompted [1.9.2]": 0.713,
        "trl-mixtral.lm-W1-K4-objective:router-batch:prompted [1.14.0]": 0.713,
        "trl-mixtral.lm-W1-K4-objective:router-batch:prompted [1.16.0]": 5e-07,
    },
    details=(
        "Coefficient 0.5, the figure is that of the router's own weight. 1.15.0 was read, not run. From 1.7 to 1.9 the coefficient "
        "is router_aux_loss_coef, 0.001 by default whatever the model's own is; it was passed."
    ),
)
