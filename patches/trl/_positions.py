"""What the cures of left-padded prompts share: whether a model needs to be told the positions, found by trying."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

#: what a model that counts its positions by other rules is given
_IMAGES = ("pixel_values", "token_type_ids", "mm_token_type_ids", "image_position_ids")
_known: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def logps(
    original: Callable[..., Any], self: Any, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
) -> Any:
    """Around the method that scores ``input_ids`` [B, T] under ``attention_mask`` [B, T]: positions count from the mask."""
    by_place = not any(kwargs.get(name) is not None for name in _IMAGES)
    if by_place and needs_positions(original, self, model, input_ids):
        model = _told(model)
    return original(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)


def _told(model: Any) -> Callable[..., Any]:
    def forward(**inputs: Any) -> Any:
        return model(**inputs, position_ids=(inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0))

    return forward


def needs_positions(original: Callable[..., Any], trainer: Any, model: Any, input_ids: Any) -> bool:
    """Whether padding on the left changes what this model makes of a row, and position ids undo that. Asked once.

    Every rank asks with its first batch, padded or not: a sharded model needs all of them in every forward.
    """
    import torch

    inner = trainer.accelerator.unwrap_model(model)
    if inner in _known:
        return _known[inner]
    base = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    if "position_ids" not in _parameters(base):
        return _known.setdefault(inner, False)

    row = input_ids[:1, -8:]  # [1, n]: any tokens do, and few, so that there are positions for them and the padding
    keep = row.shape[1] - 1
    shift = row[:, :1].expand(1, 3)
    padded = torch.cat([shift, row], 1), torch.cat([torch.zeros_like(shift), torch.ones_like(row)], 1)

    def score(scored: Any, ids: Any, mask: Any) -> Any:
        found = original(trainer, scored, ids, mask, keep)
        return (found[0] if isinstance(found, tuple) else found).float()

    training, devices = model.training, [torch.cuda.current_device()] if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            right = score(model, row, torch.ones_like(row))
            shifted, told = (float((score(one, *padded) - right).abs().max()) for one in (model, _told(model)))
    finally:
        model.train(training)
    # rounding is in both alike, and where positions do not matter there is nothing else
    return _known.setdefault(inner, shifted > 3 * told + 1e-5)


def _parameters(model: Any) -> Mapping[str, Any]:
    return inspect.signature(type(model).forward).parameters
