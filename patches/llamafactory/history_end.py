"""``mask_history`` with a template of ``efficient_eos``: the end of earlier answers is trained all the same.

Such a template writes no end of sequence between the turns; the label of a question's first token is the end of the answer before
it. That label is set for the masked turns too: https://github.com/hiyouga/LLaMA-Factory/pull/10827 (open).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

IGNORED = -100
MODULE, FUNCTION = "llamafactory.data.processor.supervised", "SupervisedDatasetProcessor._encode_data_example"

ADVISORY = Advisory(
    id="llamafactory-10827",
    framework="llamafactory",
    title="mask_history: with templates of efficient_eos the end of earlier answers is trained",
    affected=(("0.9.2", None),),
    trigger=({"framework": ("llamafactory",), "objective": ("last_turn_ended",)},),
    signature=("misaligned", "unexplained", "loss", "norm", "clipped"),
    links=("https://github.com/hiyouga/LLaMA-Factory/pull/10827",),
    cell="llamafactory-llama.lm-W1-K1-objective:last_turn_ended",
    patch="llamafactory-10827",
    measured={
        "llamafactory-llama.lm-W1-K1-objective:last_turn_ended [0.9.2]": 0.57,
        "llamafactory-llama.lm-W1-K1-objective:last_turn_ended [0.9.3]": 0.57,
        "llamafactory-llama.lm-W1-K1-objective:last_turn_ended [0.9.4]": 0.4,
        "llamafactory-llama.lm-W1-K1-objective:last_turn_ended [0.9.5]": 0.4,
    },
    details="Conversations of three turns and more; up to 0.9.3 of two turns too, where the question's own end is a label as well.",
)


def _encode(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    ids, labels = original(self, *args, **kwargs)
    if not (self.data_args.mask_history and self.template.efficient_eos):
        return ids, labels
    # what is trained is the token itself; a label that is another token is the end of an answer that lies before
    return ids, [label if label == token else IGNORED for token, label in zip(ids, labels, strict=True)]


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={FUNCTION: _encode},
    relies_on=(FUNCTION,),
    fingerprints={
        "9ed1f65975923b5067df31f20c6afd4c7739ac6ce42c03db1a7ec4e18e5ca376": "0.9.2",
        "e00930519e691079a53a8d6517614a975351a5a8ca4b1ef48bea40e64672e8b1": "0.9.3",
        "a579b81d4145518bd05752cd8d3beb7fc1d4194616dece8f2627585ed87e0c44": "0.9.4",
        "ba648509318f6bb776f024922fe141e3d234d10fdf2039ee772683af4d939db2": "0.9.5",
    },
)
