"""Telling DeepSpeed which micro-batch of dynamic batches is the last one of an optimizer step.

OpenRLHF gives its engine gradient_accumulation_steps = 1, calls ``backward`` once for each of a number of micro-batches that is only
known when the experience is there, and ``step`` after the last. DeepSpeed's documented way for that is
``set_gradient_accumulation_boundary``: https://deepspeed.readthedocs.io/en/latest/training.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DYNAMIC: dict[str, Any] = {"framework": ("openrlhf",), "batching": ("dynamic",)}
DROPPED: dict[str, Any] = {**DYNAMIC, "K": {"min": 2}, "stage": (1, 2)}


def bounded(model: str, at: int) -> Callable[..., Any]:
    """What goes around a ``training_step``.

    model : the attribute that holds the engine, or what holds the engine as ``model``
    at    : where the number of the micro-batch stands among the arguments
    """

    def training_step(original: Callable[..., Any], trainer: Any, *given: Any, **named: Any) -> Any:
        if getattr(trainer.replay_buffer, "dynamic_batch", False):
            held = getattr(trainer, model)
            engine = held if hasattr(held, "set_gradient_accumulation_boundary") else held.model
            step = named["step"] if "step" in named else given[at]
            if engine.zero_optimization_stage() in (1, 2):
                # with one accumulation step every call is a boundary: that is what is left set after the last
                engine.set_gradient_accumulation_boundary(bool(trainer.replay_buffer.dynamic_optimizer_step[step]))
        return original(trainer, *given, **named)

    return training_step
