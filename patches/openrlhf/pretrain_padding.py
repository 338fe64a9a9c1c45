"""--pretrain_mode trains on the padding: the end of a text that is not the longest of its micro-batch must predict the token after it.

From 0.7.0 the mask is of ones, one place too many for every text; 0.11.2 leaves the last place out
(https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/datasets/sft_dataset.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="truestep-2026-75",
    framework="openrlhf",
    title="--pretrain_mode: every text but the longest of its micro-batch is trained on one token of padding",
    affected=(("0.7.0", "0.11.2"),),
    trigger=({"framework": ("openrlhf",), "objective": ("whole_mean",), "batch": {"not": ("equal",)}},),
    signature=("misaligned", "re-weighted", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/datasets/sft_dataset.py",),
    cell="openrlhf-llama.lm-W1-K1-objective:whole_mean",
    patch="truestep-2026-75",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:whole_mean [0.6.4]": 1.0e-06,
        "openrlhf-llama.lm-W1-K1-objective:whole_mean [0.9.0]": 0.647,
        "openrlhf-llama.lm-W1-K1-objective:whole_mean [0.11.0]": 0.647,
        "openrlhf-llama.lm-W1-K1-objective:whole_mean [0.11.2]": 1.0e-06,
    },
    details="The last token of a text is the end of the sequence: what the model learns besides is to go on with padding.",
)


def _get_loss_mask(original: Callable[..., Any], dataset: Any, input_ids: Any, idx: int) -> Any:
    mask = original(dataset, input_ids, idx)
    if dataset.pretrain_mode:
        mask[:, -1:] = 0  # the place that nothing follows
    return mask


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.datasets.sft_dataset",
    around={"SFTDataset.get_loss_mask": _get_loss_mask},
    relies_on=("SFTDataset.get_loss_mask", "SFTDataset.__getitem__", "SFTDataset.collate_fn"),
    fingerprints={
        "fc2a0f7a6a827b4f0474693ca08e488168c0e78c496f8a585fb811b4a6fce6e0": "0.7.0.post1",
        "ec1a45b50a5f6b4e279b9abd40e504ff9bb2f9390d4377ff91a34a0a61c35db4": "0.9.0 .. 0.11.0",
    },
)
