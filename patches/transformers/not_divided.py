"""4.46.2 to 4.47.1 do not divide by the accumulation steps for heads that are not given the number of items.

https://github.com/huggingface/transformers/pull/35207. In 4.46.2 and 4.46.3 the logged loss is divided and looks right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, sources
from ._trainer import FACTS, SEVERAL

ADVISORY = Advisory(
    id="transformers-35207",
    framework="transformers",
    title="Gradient times the accumulation steps for heads that are not given the number of items (the log may look right)",
    affected=(("4.46.2", "4.48.0"),),
    trigger=(
        {**FACTS, "accepts_items": (False,), "K": SEVERAL},
        {**FACTS, "compute_loss": ("flagged", "override"), "K": SEVERAL},
    ),
    signature=("scaled", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/pull/35207",
        "https://github.com/huggingface/transformers/pull/35438",
    ),
    cell="transformers-bert.class-W1-K4",
    patch="transformers-35207",
    measured={
        "transformers-bert.class-W1-K4 [4.46.2]": 3.0,
        "transformers-bert.class-W1-K4 [4.47.1]": 3.0,
        "transformers-gpt2.lm-W1-K4-batch:prompted [4.46.3]": 3.1,
        "transformers-bert.class-W1-K4 [4.48.0]": 5.7e-07,
    },
    details="Also for a Trainer that says model_accepts_loss_kwargs = False. Compare gradients, not logs.",
)


def _get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    self._truestep_window = len(found[0])
    return found


def _training_step(original: Callable[..., Any], self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
    """A mean over the micro-batch, whoever computed it, is divided by the micro-batches of its window: in the backward, and in the log."""
    used = num_items_in_batch is not None and (self.model_accepts_loss_kwargs or self.compute_loss_func is not None)
    if used or self.use_apex or self.is_deepspeed_enabled:
        return original(self, model, inputs, num_items_in_batch)
    backward, window = self.accelerator.backward, self._truestep_window
    self.accelerator.backward = lambda loss, **kwargs: backward(loss / window, **kwargs)
    try:
        logged = original(self, model, inputs, num_items_in_batch)
    finally:
        del self.accelerator.backward
    # these releases divide the log by the configured steps where they have counted no items
    return logged * ((self.args.gradient_accumulation_steps if num_items_in_batch is None else 1) / window)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.training_step": _training_step, "Trainer.get_batch_samples": _get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("4.46.2 .. 4.46.3", "4.47.1"),
)
