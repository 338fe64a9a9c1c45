"""Anchored fine-tuning returns the mean over its micro-batch, and nobody divides it by the accumulation steps.

``CustomSeq2SeqTrainer.compute_loss`` calls the loss function without ``num_items_in_batch``; the Trainer, which sees a
``compute_loss_func``, takes the loss for one that is divided by the items of the whole step already. Not reported upstream as far
as is known; the source of the main branch of 2026-08-18 is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

_ASFT = {"framework": ("llamafactory",), "objective": ("asft",)}

ADVISORY = Advisory(
    id="llamafactory-asft-window",
    framework="llamafactory",
    title="use_asft_loss: gradient and loss are a mean of means, times the accumulation steps",
    affected=(("0.9.5", None),),
    trigger=({**_ASFT, "K": {"min": 2}}, {**_ASFT, "world_size": {"min": 2}}),
    signature=("re-weighted", "scaled", "loss", "norm", "clipped"),
    links=(
        "https://github.com/hiyouga/LLaMA-Factory/pull/10174",
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/train/sft/trainer.py",
    ),
    cell="llamafactory-llama.lm-W1-K8-objective:asft",
    patch="llamafactory-asft-window",
    measured={
        "llamafactory-llama.lm-W1-K1-objective:asft [0.9.5]": 1.2e-06,
        "llamafactory-llama.lm-W1-K8-objective:asft [0.9.5]": 8.1,
        "llamafactory-llama.lm-W2-K4-objective:asft [0.9.5]": 3.6,
    },
    details="With max_grad_norm at its default the clipping hides most of the factor. Keep gradient_accumulation_steps at 1 and one rank.",
)


def _compute_loss(
    original: Callable[..., Any], self: Any, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Any:
    labels = inputs["labels"]
    loss = original(self, model, inputs, *args, **kwargs)
    items = kwargs.get("num_items_in_batch")
    if not self.finetuning_args.use_asft_loss or items is None or not model.training:
        return loss
    # the items are those of all ranks, whose gradients are averaged, where the Trainer counts so
    ranks = self.accelerator.num_processes if getattr(self.args, "average_tokens_across_devices", False) else 1
    return loss * labels[..., 1:].ne(-100).sum() * ranks / items


PATCH = Patch(
    advisory=ADVISORY,
    module="llamafactory.train.sft.trainer",
    around={"CustomSeq2SeqTrainer.compute_loss": _compute_loss},
    relies_on=("CustomSeq2SeqTrainer.compute_loss", "CustomSeq2SeqTrainer.__init__"),
    fingerprints={
        "714d50ac32c625102dea3d3445c3e2b2c9e3e003d39176e7be3407473001c7c3": "0.9.5",
    },
)
