"""The Trainer counts the first token of every sequence as an item, although nothing predicts it.

https://github.com/huggingface/transformers/pull/46204: loss and gradient come out too small by items / labels,
(T - 1) / T for sequences of T labelled tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, recounted, skips_first, sources

#: a causal head whose labels begin with the first token
_LABELLED: dict[str, Any] = {
    "task": ("lm",), "batch": {"not": ("prompted",)}, "adapter": {"not": ("prompt",)}, "accepts_items": (True,),
    "ignores_items": (False,), "objective": {"not": ("smoothed",)}, "compute_loss": ("model", "func"),
}  # fmt: skip

#: through the Trainer itself, TRL's SFTTrainer, and what LLaMA-Factory trains from the first token on; what was packed has no first
#: token that counts
LABELLED = (
    {"framework": ("transformers",), **_LABELLED},
    {"framework": ("trl",), "packing": ("off",), **_LABELLED},
    {"framework": ("llamafactory",), **_LABELLED, "objective": ("whole_mean", "document_mean")},
)

ADVISORY = Advisory(
    id="transformers-46204",
    framework="transformers",
    title="Causal language models: one label too many is counted per sequence, loss and gradient are too small",
    affected=(("4.46.2", "4.47.0"), ("4.47.1", "4.48.0"), ("4.48.1", "5.10.1")),
    trigger=LABELLED,
    signature=("scaled", "loss", "norm", "clipped", "unexplained", "reading"),
    links=("https://github.com/huggingface/transformers/pull/46204",),
    cell="transformers-llama.lm-W1-K4",
    patch="transformers-46204",
    measured={
        "transformers-llama.lm-W1-K4 [4.46.0]": 5.1e-07,
        "transformers-llama.lm-W1-K4 [4.46.2]": 0.151,
        "transformers-llama.lm-W1-K4 [4.57.6]": 0.151,
        "transformers-llama.lm-W1-K4 [5.9.0]": 0.151,
        "transformers-llama.lm-W1-K4 [5.10.1]": 5.1e-07,
    },
    details="The shorter the sequences, the more. Right where the first label is -100, as with a masked prompt.",
)


def get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    batches, items = original(self, *args, **kwargs)
    seen_to = getattr(self, "_loss_shifts_labels", False) or self.args.n_gpu > 1
    if items is None or seen_to or not skips_first(self, self._prepare_inputs(batches[0])):
        return batches, items
    return batches, recounted(self, batches, items)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.get_batch_samples": get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("4.46.2 .. 4.46.3", "5.2.0 .. 5.9.0"),
)
