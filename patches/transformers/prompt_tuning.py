"""With PEFT's prompt tuning the first token of a sequence is a target that is not counted.

Virtual tokens stand before the sequence, so its first token is predicted by the last of them, and PEFT trains on it
where it is labelled. The Trainer counts the targets of a causal model from the second label on since
https://github.com/huggingface/transformers/pull/46204, which is right for a plain model only: the sum of N losses
is divided by N minus the number of sequences. Before that change, for every other causal model one too many was counted,
and here it was right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, recounted, skips_first, sources

ADVISORY = Advisory(
    id="truestep-2026-50",
    framework="transformers",
    title="Prompt tuning: the first token of every sequence is trained and not counted",
    affected=(("5.10.1", None),),
    # a sequence that is not trained on its first token has nothing that could be left out of the count
    trigger=({"adapter": ("prompt",), "batch": {"not": ("prompted",)}, "clipping": {"not": ("tight",)}},),
    signature=("scaled", "loss", "norm"),
    links=("https://github.com/huggingface/transformers/pull/46204",),
    cell="transformers-llama.lm+prompt-W1-K1",
    patch="truestep-2026-50",
    measured={
        "transformers-llama.lm+prompt-W1-K1 [4.46.3]": 1e-06,
        "transformers-llama.lm+prompt-W1-K1 [4.57.6]": 1e-06,
        "transformers-llama.lm+prompt-W1-K1 [5.10.4]": 0.178,
        "transformers-llama.lm+prompt-W1-K1 [5.23.0]": 0.178,
    },
    details="No report known. The other way round, labels of a plain causal model were counted once too often up to 5.9.",
)


def _get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    batches, items = original(self, *args, **kwargs)
    if items is None or not self._loss_shifts_labels or self.args.n_gpu > 1:
        return batches, items
    if skips_first(self, self._prepare_inputs(batches[0])):
        return batches, items
    return batches, recounted(self, batches, items)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.get_batch_samples": _get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("5.10.1 .. 5.13.1", "5.23.0"),
)
