"""What the cures of a logged loss share: loss_mean is averaged over the ranks before it is logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def over_ranks(
    original: Callable[..., Any],
    trainer: Any,
    args: Any,
    global_step: int,
    step_bar: Any,
    logs_dict: Any = None,
    *rest: Any,
    **more: Any,
) -> Any:
    """Around ``save_logs_and_checkpoints``; every rank comes here in the same step."""
    if logs_dict and "loss_mean" in logs_dict:
        logs_dict = {**logs_dict, **trainer.strategy.all_reduce({"loss_mean": logs_dict["loss_mean"]})}
    return original(trainer, args, global_step, step_bar, logs_dict or {}, *rest, **more)
