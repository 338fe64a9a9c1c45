"""JetMoE: labels shifted twice for a while, and an auxiliary loss that its configuration cannot turn on.

The head shifted its labels and called the shared loss, which shifts them again: every position learns the token after the next.
Until 5.0 ``config.output_router_logits`` is not looked at, only the argument of that name, which no trainer gives.
The first was mended by https://github.com/huggingface/transformers/pull/37830; no report of the second is known
(https://github.com/huggingface/transformers/issues/31791 is about the argument).
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

_HEAD = {**FACTS, "model": ("jetmoe.lm",)}

ADVISORY = (
    Advisory(
        id="truestep-2026-23",
        framework="transformers",
        title="JetMoE shifts its labels twice and learns token t + 2",
        affected=(("4.48.3", "4.54.0"),),
        trigger=(_HEAD,),
        signature=("unexplained", "misaligned", "loss", "re-weighted"),
        links=(
            "https://github.com/huggingface/transformers/pull/37830",
            "https://github.com/huggingface/transformers/blob/v4.48.3/src/transformers/models/jetmoe/modeling_jetmoe.py",
        ),
        cell="transformers-jetmoe.lm-W1-K1-batch:prompted",
        measured={
            "transformers-jetmoe.lm-W1-K1-batch:prompted [4.48.1]": 5.6e-07,
            "transformers-jetmoe.lm-W1-K1-batch:prompted [4.48.3]": 1.43,
            "transformers-jetmoe.lm-W1-K1-batch:prompted [4.53.3]": 1.43,
            "transformers-jetmoe.lm-W1-K1-batch:prompted [4.54.0]": 5.6e-07,
        },
    ),
    Advisory(
        id="truestep-2026-24",
        framework="transformers",
        title="JetMoE ignores output_router_logits of its configuration: the auxiliary loss weighs nothing",
        affected=(("4.45.2", "5.0.0"),),
        trigger=({**_HEAD, "objective": ("router",)},),
        signature=("scaled", "loss", "unexplained", "re-weighted", "misaligned"),
        links=("https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/models/jetmoe/modeling_jetmoe.py",),
        cell="transformers-jetmoe.lm-W1-K1-objective:router-batch:prompted",
        measured={
            "transformers-jetmoe.lm-W1-K1-objective:router-batch:prompted [4.45.2]": 0.278,
            "transformers-jetmoe.lm-W1-K1-objective:router-batch:prompted [4.57.6]": 0.278,
            "transformers-jetmoe.lm-W1-K1-objective:router-batch:prompted [5.23.0]": 5.4e-07,
        },
        details="Pass output_router_logits to the forward. From 5.0 to at least 5.12 the routers' logits cannot be had either.",
    ),
)
