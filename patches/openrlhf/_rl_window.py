"""Looking ahead over the micro-batches of an optimizer step of actor or critic.

``ppo_train`` makes its loader itself, every time: for as long as it runs, ``DataLoader`` in its module makes one that reads K
micro-batches before it hands out the first. What they weigh is applied where the loss is handed to the engine, so that what is logged,
the mean over a micro-batch, stays what it was.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ._window import Window


class _Ahead:
    """A loader that fills ``window`` before it hands out the first micro-batch of it."""

    def __init__(self, loader: Any, window: Window, count: Callable[[Any], float]) -> None:
        self._loader, self._window, self._count = loader, window, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        while ahead := list(islice(batches, self._window.size)):
            self._window.begin([self._count(batch) for batch in ahead])
            yield from ahead


def windowed(identifier: str, module: str, model: str) -> Callable[..., Any]:
    """What goes around a ``ppo_train`` whose micro-batches are means over their own tokens.

    model : the attribute that holds the engine, or what holds the engine as ``model``
    """

    def ppo_train(original: Callable[..., Any], trainer: Any, *given: Any, **named: Any) -> Any:
        strategy = trainer.strategy
        size, buffer = strategy.accumulated_gradient, trainer.replay_buffer
        held = getattr(trainer, model)
        engine = held if hasattr(held, "micro_steps") else held.model
        why = _unfit(trainer)
        if not why and (engine.micro_steps % size or len(buffer) // buffer.sample_batch_size % size):
            why = "an epoch that ends within an optimizer step"
        if why:
            warnings.warn(f"truestep's patch {identifier} is not for {why}: nothing was changed", stacklevel=2)
            return original(trainer, *given, **named)
        home = sys.modules[module]
        # in 0.10.3 a micro-batch's mean is over the tokens of all ranks already: then every rank counts what all of them have
        shared = hasattr(home, "get_loss_batch_info")
        window = Window(size, 1, lambda number: number) if shared else Window(size, ranks(), over_ranks)
        loader, backward = vars(home)["DataLoader"], strategy.backward

        def weighted(loss: Any, *more: Any, **others: Any) -> Any:
            return backward(loss * window.weight(), *more, **others)

        def counted(batch: Any) -> float:
            own = float(batch.action_mask.sum())
            return over_ranks(own) if shared else own

        home.DataLoader = lambda *a, **k: _Ahead(loader(*a, **k), window, counted)  # type: ignore[attr-defined]
        strategy.backward = weighted
        try:
            return original(trainer, *given, **named)
        finally:
            home.DataLoader = loader  # type: ignore[attr-defined]
            del strategy.backward

    return ppo_train


def _unfit(trainer: Any) -> str:
    """What was never run, or is no mean over tokens; empty where the cure is for it."""
    loss = getattr(trainer, "actor_loss_fn", None) or trainer.critic_loss_fn
    old = hasattr(trainer, "pretrain_dataloader")
    unfit = {
        "dynamic batches": getattr(trainer.replay_buffer, "dynamic_batch", False),
        "packed samples": trainer.replay_buffer.packing_samples,
        "ring attention": getattr(trainer.strategy, "ring_attn_group", None) is not None,
        "the router's loss": trainer.aux_loss,
        # up to 0.7 the divergence is a mean over responses, and a pretraining loss may come between
        "a divergence over responses": old and trainer.args.use_kl_loss,
        "a pretraining loss": old and trainer.pretrain_dataloader is not None,
        "a loss that is a mean over responses": not loss.token_level_loss,
    }
    return next((what for what, found in unfit.items() if found), "")


def ranks() -> int:
    import torch

    return int(torch.distributed.get_world_size())


def over_ranks(number: float) -> float:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = torch.tensor(number, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(whole)
    return float(whole)
