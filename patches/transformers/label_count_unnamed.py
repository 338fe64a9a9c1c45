"""The count of labels was corrected for classes whose name names a loss: GPT-2 and other ``*LMHeadModel`` still overcount.

The fix of https://github.com/huggingface/transformers/pull/46204 asks ``model.loss_type``, which is found by the name of
the class (``ForCausalLM`` in ``LlamaForCausalLM``). For ``GPT2LMHeadModel`` there is none; its loss shifts all the same.
Not reported upstream as far as is known.
"""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, sources
from .label_count import LABELLED, get_batch_samples

ADVISORY = Advisory(
    id="truestep-2026-21",
    framework="transformers",
    title="GPT2LMHeadModel and other causal heads not called ForCausalLM: one label too many is counted per sequence",
    affected=(("5.10.1", None),),
    trigger=(
        *({**one, "loss_type": (None,)} for one in LABELLED),
        *({**one, "loss_type": (None,), "objective": ("smoothed",)} for one in LABELLED),
    ),
    signature=("scaled", "loss", "norm", "clipped"),
    links=("https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py",),
    cell="transformers-gpt2.lm-W1-K4",
    patch="truestep-2026-21",
    measured={
        "transformers-gpt2.lm-W1-K4 [5.10.1]": 0.151,
        "transformers-gpt2.lm-W1-K4 [5.23.0]": 0.151,
        "transformers-gpt2.lm-W1-K4-batch:prompted [5.23.0]": 3e-07,
        "transformers-llama.lm-W1-K4 [5.23.0]": 5.1e-07,
    },
    details="Set the first label of every sequence to -100 and the count is right.",
)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.get_batch_samples": get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("5.10.1 .. 5.13.1", "5.23.0"),
)
