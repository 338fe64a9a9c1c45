"""The last window of an epoch is divided by the configured accumulation steps, not by its own length.

https://github.com/huggingface/transformers/issues/38837; since 4.55.0 the Trainer counts the micro-batches that there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, sources
from ._trainer import FACTS

_SHORT = {**FACTS, "varying": (True,)}

_NOW = Advisory(
    id="transformers-38837",
    framework="transformers",
    title="The last, shorter window of an epoch is divided by all accumulation steps: too small",
    affected=(("4.52.1", "4.55.0"),),
    trigger=(
        {**_SHORT, "accepts_items": (False,)},
        {**_SHORT, "task": ("span",)},
        {**_SHORT, "compute_loss": ("flagged",)},
    ),
    signature=("scaled", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/issues/38837",
        "https://github.com/huggingface/transformers/pull/38872",
    ),
    cell="transformers-bert.class-W1-K4.4.2b4",
    patch="transformers-38837",
    measured={
        "transformers-bert.class-W1-K4.4.2b4 [4.52.1]": 0.5,
        "transformers-bert.class-W1-K4.4.2b2 [4.53.3]": 0.5,
        "transformers-bert.class-W1-K4.4.2b2 [4.54.0]": 0.5,
        "transformers-bert.class-W1-K4.4.2b2 [4.55.0]": 3.4e-07,
    },
    details="Models that are given the number of items are right.",
)

#: trainers that override compute_loss are out of the patch's reach
_OVERRIDDEN = replace(
    _NOW,
    id="transformers-38837-trl",
    title="TRL's trainers: the last, shorter window of an epoch is divided by all accumulation steps: too small",
    trigger=({**_SHORT, "compute_loss": ("trainer",)},),
    cell="trl-llama.lm-W1-K4.4.2b4-objective:dpo_sigmoid",
    patch=None,
    measured={
        "trl-llama.lm-W1-K4.4.2b4-objective:dpo_sigmoid [4.52.4]": 0.5,
        "trl-llama.lm-W1-K4.4.2b4-objective:dpo_sigmoid [4.53.3]": 0.5,
    },
    details="With TRL 0.15.2. Supervised fine-tuning is given the number of items and right.",
)

ADVISORY = (_NOW, _OVERRIDDEN)


def _get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    self._truestep_window = len(found[0])
    return found


def _compute_loss(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Any,
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
    **more: Any,
) -> Any:
    result = original(self, model, inputs, return_outputs, num_items_in_batch=num_items_in_batch, **more)
    # what training_step divides by the configured steps, by the same rule
    window = getattr(self, "_truestep_window", self.args.gradient_accumulation_steps)
    divided = (not self.model_accepts_loss_kwargs or num_items_in_batch is None) and self.compute_loss_func is None
    if not divided or not model.training or window == self.args.gradient_accumulation_steps:
        return result
    factor = self.args.gradient_accumulation_steps / window
    return (result[0] * factor, *result[1:]) if return_outputs else result * factor


PATCH = Patch(
    advisory=_NOW,
    module=MODULE,
    around={"Trainer.compute_loss": _compute_loss, "Trainer.get_batch_samples": _get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("4.52.1 .. 4.52.4", "4.54.0 .. 4.54.1"),
)
