"""Up to 0.9.3 a template of ``efficient_eos`` labels the first token of every sample: counted as an item, and predicted by nothing.

The label of a question's first token is the end of the answer before it, and the first question has none. From transformers 4.46.2
on the Trainer counts that label (https://github.com/huggingface/transformers/pull/46204), so that loss and gradient are too small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from .history_end import FUNCTION, IGNORED, MODULE

ADVISORY = Advisory(
    id="llamafactory-first-end",
    framework="llamafactory",
    title="Templates of efficient_eos: one label too many per sample, loss and gradient are too small",
    affected=(("0.9.2", "0.9.4"),),
    trigger=({"framework": ("llamafactory",), "objective": ("response_mean", "turns_ended")},),
    signature=("scaled", "loss", "norm", "clipped"),
    links=(
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.3/src/llamafactory/data/processor/supervised.py",
        "https://github.com/huggingface/transformers/pull/46204",
    ),
    cell="llamafactory-llama.lm-W1-K1-objective:response_mean",
    patch="llamafactory-first-end",
    measured={
        "llamafactory-llama.lm-W1-K1-objective:response_mean [0.9.2]": 0.26,
        "llamafactory-llama.lm-W1-K1-objective:response_mean [0.9.3]": 0.26,
        "llamafactory-llama.lm-W1-K1-objective:response_mean [0.9.4]": 4.8e-07,
        "llamafactory-llama.lm-W1-K1-objective:response_mean [0.9.5]": 4.8e-07,
        "llamafactory-llama.lm-W1-K1-objective:turns_ended [0.9.2]": 0.16,
        "llamafactory-llama.lm-W1-K1-objective:turns_ended [0.9.3]": 0.16,
        "llamafactory-llama.lm-W1-K1-objective:turns_ended [0.9.4]": 7.6e-07,
        "llamafactory-llama.lm-W1-K1-objective:turns_ended [0.9.5]": 7.6e-07,
    },
    details="By labels / (labels + samples): the shorter the answers, the more.",
)


def _encode(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    ids, labels = original(self, *args, **kwargs)
    if self.template.efficient_eos and labels and labels[0] != ids[0]:
        labels = [IGNORED, *labels[1:]]
    return ids, labels


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={FUNCTION: _encode},
    relies_on=(FUNCTION,),
    fingerprints={
        "9ed1f65975923b5067df31f20c6afd4c7739ac6ce42c03db1a7ec4e18e5ca376": "0.9.2",
        "e00930519e691079a53a8d6517614a975351a5a8ca4b1ef48bea40e64672e8b1": "0.9.3",
    },
)
