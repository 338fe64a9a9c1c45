"""Looking ahead over the micro-batches of an optimizer step, which may span two epochs.

DeepSpeed steps after every K micro-batches, whether or not an epoch ends between them. The weight of a micro-batch needs the
tokens of all of them, on all ranks, before the first backward: so the loader is read K micro-batches ahead, and where an epoch
ends within a window the first ones of the next are counted early, under the order that they will have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any


class Window:
    """K micro-batches of every rank: what each counts and what all of them do.

    size  : K
    ranks : W
    total : the sum of a number over all ranks
    """

    def __init__(self, size: int, ranks: int, total: Callable[[float], float]) -> None:
        self.size, self.ranks, self.total = size, ranks, total
        self.weights: deque[float] = deque()  # of the micro-batches that were counted and are not taken yet

    def begin(self, counts: list[float]) -> None:
        """The next window has these counts: K of them, or fewer where no step will come of it."""
        whole = self.total(sum(counts))
        self.weights.extend(count * self.size * self.ranks / whole if whole else 1.0 for count in counts)

    def weight(self) -> float:
        """What the mean over the next micro-batch's tokens is multiplied by; the mean over K and W is the engine's."""
        return self.weights.popleft()


class Ahead:
    """A loader that fills ``window`` before it hands out the first micro-batch of it; otherwise the loader that it is around.

    count : the trained tokens of a batch
    last  : whether an epoch is the last one, by its number
    """

    def __init__(self, loader: Any, window: Window, count: Callable[[Any], float], last: Callable[[int], bool]) -> None:
        self._loader, self._window, self._count, self._last = loader, window, count, last
        self._missing = 0  # micro-batches of later epochs that belong to a window already begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        for batch in islice(batches, self._missing):  # counted when their window began
            self._missing -= 1
            yield batch
        while ahead := list(islice(batches, self._window.size)):
            later = self._of_later_epochs(self._window.size - len(ahead))
            self._missing = len(later)
            self._window.begin([self._count(batch) for batch in ahead] + later)
            yield from ahead

    def _of_later_epochs(self, many: int) -> list[float]:
        """The counts of the first ``many`` micro-batches of the epochs to come, fewer where there are not so many."""
        import torch

        sampler, counts = self._loader.sampler, list[float]()
        epoch, consumed = sampler.epoch, sampler.consumed_indicies
        try:
            with torch.random.fork_rng(devices=[]):  # a loader that begins draws a seed
                while len(counts) < many and not self._last(sampler.epoch):
                    sampler.set_epoch(sampler.epoch + 1)
                    counts += [self._count(batch) for batch in islice(iter(self._loader), many - len(counts))]
        finally:
            sampler.set_epoch(epoch, consumed * sampler.num_replicas)
        return counts
