"""A Trainer whose ``compute_loss`` returns a mean over the micro-batch: not divided, as the model takes the number of items.

Since 4.53.0 the documentation of ``compute_loss`` asks to set ``model_accepts_loss_kwargs = False`` then (since 5.19.0
``loss_is_scaled_for_ga``, https://github.com/huggingface/transformers/pull/43651); before, nothing said so.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import DOCS, FACTS, SEVERAL

_OWN = {**FACTS, "compute_loss": ("override",), "accepts_items": (True,)}
_TRIGGER = ({**_OWN, "K": SEVERAL}, {**_OWN, "parts": SEVERAL, "batch": {"not": ("equal",)}})

ADVISORY = (
    Advisory(
        id="transformers-43595",
        framework="transformers",
        title="A compute_loss of one's own that returns a mean is not divided by the accumulation steps",
        affected=(("4.46.0", "4.53.0"),),
        trigger=_TRIGGER,
        signature=("re-weighted", "scaled", "loss", "norm"),
        links=("https://github.com/huggingface/transformers/issues/43595",),
        cell="transformers-llama.lm-W1-K4-compute_loss:override",
        measured={"transformers-llama.lm-W1-K4-compute_loss:override [4.48.1]": 2.9},
        details="Set self.model_accepts_loss_kwargs = False; a mean of means remains.",
    ),
    Advisory(
        id="transformers-43595-documented",
        framework="transformers",
        title="A compute_loss of one's own that returns a mean must say so, or is not divided by the accumulation steps",
        affected=(("4.53.0", None),),
        trigger=_TRIGGER,
        signature=("re-weighted", "scaled", "loss", "norm"),
        links=(
            f"{DOCS}/v4.53.3/en/main_classes/trainer#transformers.Trainer.compute_loss",
            "https://github.com/huggingface/transformers/issues/43595",
        ),
        cell="transformers-llama.lm-W1-K4-compute_loss:override",
        measured={
            "transformers-llama.lm-W1-K4-compute_loss:override [4.57.6]": 2.9,
            "transformers-llama.lm-W1-K4-compute_loss:override [5.23.0]": 2.9,
        },
        details="Set self.model_accepts_loss_kwargs = False, or since 5.19.0 loss_is_scaled_for_ga = False.",
        by_design=True,
    ),
)
