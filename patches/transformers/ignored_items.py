"""Heads that take ``**kwargs`` are believed to divide by the number of items of the step; most do not.

https://github.com/huggingface/transformers/issues/47688: their mean over a micro-batch is neither divided by the
accumulation steps nor freed of the factor for the ranks. Until 4.57 these were few (Mamba, GPT-NeoX in 4.48.3, ModernBERT, Llama-type
classifiers), since 5.0 nearly all heads that are no causal language models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, by_items, ignores_items, recounted, sources
from ._trainer import BY_MODEL, SEVERAL, UNLIKE

_IGNORED = {**BY_MODEL, "ignores_items": (True,), "objective": {"not": ("smoothed",)}}
_TRIGGER = (
    {**_IGNORED, "K": SEVERAL},
    {**_IGNORED, "world_size": SEVERAL, "averages": (True,)},
    *({**one, **_IGNORED} for one in UNLIKE),
)

_NOW = Advisory(
    id="transformers-47688",
    framework="transformers",
    title="Gradient and loss times the accumulation steps and the world size for heads that ignore the number of items",
    affected=(("4.54.0", None),),
    trigger=_TRIGGER,
    signature=("scaled", "re-weighted", "loss", "norm", "clipped", "reading"),
    links=("https://github.com/huggingface/transformers/issues/47688",),
    cell="transformers-llama.class-W1-K4",
    patch="transformers-47688",
    measured={
        "transformers-llama.class-W1-K4 [4.53.3]": 4.2e-07,
        "transformers-llama.class-W1-K4 [4.54.0]": 3.0,
        "transformers-llama.class-W1-K4 [5.23.0]": 3.0,
        "transformers-bert.class-W1-K4 [4.57.6]": 5.7e-07,
        "transformers-bert.class-W1-K4 [5.0.0]": 3.0,
        "transformers-bert.class-W1-K4 [5.23.0]": 3.0,
        "transformers-bert.class-W2-K1 [5.23.0]": 1.0,
    },
    details="eval_loss too is times the world size. Set trainer.model_accepts_loss_kwargs = False after building the Trainer (since 5.19 loss_is_scaled_for_ga = False).",
)

#: before Llama's classifiers it was a few causal models and ModernBERT
_BEFORE = replace(
    _NOW,
    id="transformers-47688-before",
    title="Gradient and loss times the accumulation steps for the first heads that ignored the number of items (Mamba and others)",
    affected=(("4.46.0", "4.54.0"),),
    links=(*_NOW.links, "https://github.com/huggingface/transformers/blob/v4.48.3/src/transformers/models/gpt_neox/modeling_gpt_neox.py"),
    cell="transformers-mamba.lm-W1-K4-batch:prompted",
    patch="transformers-47688-before",
    measured={
        "transformers-mamba.lm-W1-K4-batch:prompted [4.46.0]": 3.25,
        "transformers-mamba.lm-W1-K4-batch:prompted [4.51.3]": 3.25,
        "transformers-neox.lm-W1-K4 [4.48.3]": 3.0,
        "transformers-modernbert.mlm-W1-K4 [4.49.0]": 3.11,
    },
    details="Mamba is right on 5.23.0; GPT-NeoX was so in 4.48.3 alone.",
)

ADVISORY = (_NOW, _BEFORE)


def _get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """All items are counted by the same rule as those of a micro-batch: up to 5.14 the first label of T5 and BART was left out."""
    batches, items = original(self, *args, **kwargs)
    if items is None or not _concerns(self, batches[0]) or not ignores_items(self, self._prepare_inputs(batches[0])):
        return batches, items
    return batches, recounted(self, batches, items)


def _concerns(trainer: Any, inputs: Mapping[str, Any]) -> bool:
    by_model = trainer.compute_loss_func is None and trainer.label_smoother is None
    told = getattr(trainer, "loss_is_scaled_for_ga", None) is False
    return trainer.model_accepts_loss_kwargs and by_model and not told and "labels" in inputs and trainer.args.n_gpu <= 1


def _compute_loss(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Mapping[str, Any],
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
    **more: Any,
) -> Any:
    kept = dict(inputs)
    result = original(self, model, inputs, return_outputs, num_items_in_batch=num_items_in_batch, **more)
    if num_items_in_batch is None or not _concerns(self, kept) or not ignores_items(self, kept):
        return result
    return by_items(self, kept, num_items_in_batch, result, return_outputs)


def _patch(advisory: Advisory, first: str, last: str) -> Patch:
    return Patch(
        advisory=advisory,
        module=MODULE,
        around={"Trainer.compute_loss": _compute_loss, "Trainer.get_batch_samples": _get_batch_samples},
        relies_on=RELIES_ON,
        fingerprints=sources(first, last),
    )


PATCH = (_patch(_NOW, "4.54.0 .. 4.54.1", "5.23.0"), _patch(_BEFORE, "4.48.1 .. 4.48.3", "4.53.0 .. 4.53.3"))
