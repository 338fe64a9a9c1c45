"""GKD divides by the tokens of all ranks, and nothing makes up for the mean over ranks that follows.

Since https://github.com/huggingface/trl/pull/6006 the loss of a rank is a sum over ``num_items_in_batch``, which counts
the tokens of all ranks (``average_tokens_across_devices``, the default). Gradients are averaged over ranks after that, so
a loss must be multiplied by their number, as the Trainer's and SFTTrainer's ``compute_loss`` do; GKD's own does not. No
report is known to us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from .gkd_normalisation import GKD

ADVISORY = Advisory(
    id="truestep-2026-61",
    framework="trl",
    title="GKD: gradients divided by the number of ranks once too often",
    affected=(("1.7.0", None),),
    trigger=({"objective": GKD, "world_size": {"min": 2}},),
    signature=("scaled", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/gkd/gkd_trainer.py",
        "https://github.com/huggingface/trl/pull/6006",
    ),
    cell="trl-neox.lm-W2-K1-objective:gkd",
    patch="truestep-2026-61",
    measured={
        "trl-neox.lm-W2-K1-objective:gkd-batch:equal [1.6.0]": 2.6e-07,
        "trl-neox.lm-W2-K1-objective:gkd [1.7.0]": 0.5,
        "trl-neox.lm-W2-K1-objective:gkd [1.16.0]": 0.5,
        "trl-neox.lm-W2-K4-objective:gkd-batch:equal [1.16.0]": 0.5,
    },
    details="The loss that is logged is divided too.",
)


def _compute_loss(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Any,
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
) -> Any:
    found = original(self, model, inputs, return_outputs, num_items_in_batch)
    if num_items_in_batch is None or not getattr(self.args, "average_tokens_across_devices", False):
        return found
    tensor_parallel = getattr(self, "get_tp_size", lambda: 1)()  # ranks that share their samples
    ranks = self.accelerator.num_processes // tensor_parallel
    return (found[0] * ranks, *found[1:]) if return_outputs else found * ranks


PATCH = Patch(
    advisory=ADVISORY,
    module="trl.experimental.gkd.gkd_trainer",
    around={"GKDTrainer.compute_loss": _compute_loss},
    relies_on=("GKDTrainer.compute_loss", "GKDTrainer.generalized_jsd_loss"),
    fingerprints={
        "58cb5eb025c81f7bb638449c35bfb2b3f6ad4b602bd70643be66526c118858bd": "1.7.0",
        "3830a78af2cf981662249ddfe1b2eba5d0e01444dbad93a373f6c6177aa2b68e": "1.8.0 .. 1.13.0",
        "c203250fc641067ec4d5563fdc9669df612d263d65678a2f1c4626fcba518f3e": "1.14.0 .. 1.16.0",
    },
)
