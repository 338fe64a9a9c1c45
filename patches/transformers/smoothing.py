"""Label smoothing divides by the items of the micro-batch where the Trainer believes that it divides by the step's.

https://github.com/huggingface/transformers/pull/47261
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, by_items, sources
from ._trainer import BY_MODEL, SEVERAL

ADVISORY = Advisory(
    id="transformers-47261",
    framework="transformers",
    title="With label smoothing gradient and loss are a mean of means, times the accumulation steps",
    affected=(("4.46.0", "5.15.0"),),
    trigger=({**BY_MODEL, "objective": ("smoothed",), "accepts_items": (True,), "parts": SEVERAL},),
    signature=("re-weighted", "scaled", "loss", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/pull/47261",
        "https://github.com/huggingface/transformers/issues/46731",
    ),
    cell="transformers-llama.lm-W1-K4-objective:smoothed-batch:prompted",
    patch="transformers-47261",
    measured={
        "transformers-llama.lm-W1-K4-objective:smoothed-batch:prompted [4.45.2]": 0.12,
        "transformers-llama.lm-W1-K4-objective:smoothed-batch:prompted [4.46.0]": 2.9,
        "transformers-llama.lm-W1-K4-objective:smoothed-batch:prompted [5.14.1]": 2.9,
        "transformers-llama.lm-W1-K4-objective:smoothed-batch:prompted [5.15.0]": 5.5e-07,
    },
)


def _compute_loss(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Mapping[str, Any],
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
    **more: Any,
) -> Any:
    kept = dict(inputs)  # the original takes the labels out
    result = original(self, model, inputs, return_outputs, num_items_in_batch=num_items_in_batch, **more)
    smoothed = self.label_smoother is not None and self.model_accepts_loss_kwargs and self.compute_loss_func is None
    if not smoothed or num_items_in_batch is None or "labels" not in kept or self.args.n_gpu > 1:
        return result
    return by_items(self, kept, num_items_in_batch, result, return_outputs)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.compute_loss": _compute_loss},
    relies_on=RELIES_ON,
    fingerprints=sources("4.46.2 .. 4.46.3", "5.14.0 .. 5.14.1"),
)
