"""What the cures of the likelihood term share: from the mean over a micro-batch's tokens to its share of the window's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Counter = Callable[[Mapping[str, Any]], Any]
"""The trained tokens of a micro-batch, as a tensor []."""


def watch_windows(tokens: Counter) -> Callable[..., Any]:
    """Around a trainer's ``__init__``: the micro-batches of a window are counted when they are read, over all ranks."""

    def init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        read = self.get_batch_samples

        def get_batch_samples(*given: Any, **named: Any) -> Any:
            found = read(*given, **named)
            if found[0]:
                counts = sum(tokens(batch) for batch in found[0]).to(self.args.device)
                ranks = self.accelerator.num_processes
                mean = self.accelerator.gather(counts).sum() / (len(found[0]) * ranks)
                self._truestep_mean_tokens = mean
            return found

        self.get_batch_samples = get_batch_samples

    return init


def share(trainer: Any, model: Any, batch: Mapping[str, Any], tokens: Counter) -> Any:
    """What a micro-batch's mean is multiplied with, so that the mean over micro-batches and ranks is the mean over tokens."""
    if not model.training or not hasattr(trainer, "_truestep_mean_tokens"):
        return 1.0
    return tokens(batch).to(trainer.args.device) / trainer._truestep_mean_tokens
