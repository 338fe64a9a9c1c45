"""An IterableDataset that ends within a window: what has been accumulated stays, and is added to the next epoch's first step.

The end of an epoch is known by its length alone; a dataset without one takes no step there and clears no gradient, so the
next window comes on top, each normalised by its own items: weights that sum to 2. Not reported upstream as far as is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE
from ._trainer import FACTS

ADVISORY = Advisory(
    id="truestep-2026-22",
    framework="transformers",
    title="An IterableDataset that ends within a window: its gradient is added to the first step of the next epoch",
    affected=(("4.52.1", None),),
    trigger=({**FACTS, "data": ("iterable",), "varying": (True,)},),
    signature=("unexplained", "re-weighted", "scaled", "stale", "loss", "dropped", "norm"),
    links=("https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py",),
    cell="transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable",
    patch="truestep-2026-22",
    measured={
        "transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable [4.57.6]": 0.756,
        "transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable [5.10.4]": 0.756,
        "transformers-llama.lm-W1-K4.2.4.2b4e2-batch:prompted-data:iterable [5.23.0]": 0.756,
    },
    details="Right with a dataset that knows its length, or whose batches are a multiple of gradient_accumulation_steps.",
)


class _Length(int):
    """The micro-batches of an epoch: as many as the Trainer supposes, until it is known how many there are."""

    seen = 0
    end: int | None = None

    def __eq__(self, other: object) -> bool:
        return int(self) == other if self.end is None else self.end == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


def _run_epoch(original: Callable[..., Any], self: Any, **kwargs: Any) -> Any:
    if not _sized(kwargs["train_dataloader"]):
        kwargs["steps_in_epoch"] = self._truestep_epoch = _Length(kwargs["steps_in_epoch"])
        resumes = kwargs["epoch"] == kwargs["epochs_trained"] and kwargs["resume_from_checkpoint"] is not None
        if resumes and not self.args.ignore_data_skip:
            self._truestep_epoch.seen = kwargs["steps_trained_in_current_epoch"]
    try:
        return original(self, **kwargs)
    finally:
        self._truestep_epoch = None


def _sized(loader: Any) -> bool:
    try:
        len(loader)
    except TypeError:
        return False
    return True


def _get_batch_samples(original: Callable[..., Any], self: Any, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
    found = original(self, epoch_iterator, num_batches, *args, **kwargs)
    epoch = getattr(self, "_truestep_epoch", None)
    if epoch is not None:
        epoch.seen += len(found[0])
        if 0 < len(found[0]) < num_batches:
            epoch.end = epoch.seen  # the comparison that makes the Trainer take the last step of an epoch
    return found


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer._run_epoch": _run_epoch, "Trainer.get_batch_samples": _get_batch_samples},
    relies_on=("Trainer._run_epoch", "Trainer.get_batch_samples"),
    fingerprints={
        "cda21aabde7688b7ee1cd3da22a245046e790ded11f029198d650c01ab5acc28": "5.3.0",
        "9f5c395134e9c6185c6e1a40d8d8bd080722af41fcbc592d66dac26cb12a8edc": "5.4.0 .. 5.16.1",
        "37f2c182db97fbb937a129e80992fea5252e265c9cd631769b3959134e180b01": "5.17.0 .. 5.22.2",
        "c67674bd0e0efd061ec86dc3dff6050ad88ab944fe3bf40bcc2b5ad059513fc2": "5.23.0",
    },
)
