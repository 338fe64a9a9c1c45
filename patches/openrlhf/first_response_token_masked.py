"""In 0.7.0 the loss mask of the SFT data set begins one token late: the first token of a response is never trained.

https://github.com/OpenRLHF/OpenRLHF/issues/973; 0.7.1 begins where the first token is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from .first_response_token import ADVISORY as BEFORE

ADVISORY = Advisory(
    id="openrlhf-973",
    framework="openrlhf",
    title=BEFORE.title,
    affected=(("0.7.0", "0.7.1"),),
    trigger=({"framework": ("openrlhf",), "objective": ("response_mean",)},),
    signature=(*BEFORE.signature, "update", "moments", "stale"),  # of steps that are skipped
    links=("https://github.com/OpenRLHF/OpenRLHF/issues/973",),
    cell=BEFORE.cell,
    patch="openrlhf-973",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted [0.7.0.post1]": 1.1,
        "openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted [0.9.0]": 5.2e-07,
    },
    details="A micro-batch whose responses are one token long has nothing left and makes the whole step NaN; DeepSpeed 0.19.8 skips such a step. Answers of several turns are masked by ranges of their own and were not run.",
)


def _get_loss_mask(original: Callable[..., Any], dataset: Any, input_ids: Any, idx: int) -> Any:
    mask = original(dataset, input_ids, idx)
    prompt = 0 if dataset.pretrain_mode or dataset.multiturn else dataset.prompt_ids_lens[idx]
    if prompt:
        mask[0, prompt - 1] = 1  # the place that predicts the first token of the response
    return mask


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.datasets.sft_dataset",
    around={"SFTDataset.get_loss_mask": _get_loss_mask},
    relies_on=("SFTDataset.get_loss_mask", "SFTDataset.__getitem__", "SFTDataset.collate_fn"),
    fingerprints={
        "fc2a0f7a6a827b4f0474693ca08e488168c0e78c496f8a585fb811b4a6fce6e0": "0.7.0.post1",
    },
)
