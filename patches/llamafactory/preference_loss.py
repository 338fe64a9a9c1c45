"""``pref_loss`` hinge, ipo and kto_pair train with the sigmoid loss.

TRL's ``DPOTrainer.dpo_loss`` was told the kind of loss by ``self.loss_type``; since TRL 0.20 it is an argument, "sigmoid" by default, that
LLaMA-Factory does not give. LLaMA-Factory allows those releases of TRL since https://github.com/hiyouga/LLaMA-Factory/pull/9617. Not
reported upstream as far as is known; the source of the main branch of 2026-08-18 is the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="llamafactory-pref-loss",
    framework="llamafactory",
    title="DPO: pref_loss hinge, ipo and kto_pair are ignored, the loss is sigmoid",
    affected=(("0.9.4", None),),
    trigger=({"framework": ("llamafactory",), "objective": ("dpo_hinge", "dpo_ipo")},),
    signature=("unexplained", "re-weighted", "loss", "norm", "clipped"),
    links=(
        "https://github.com/hiyouga/LLaMA-Factory/pull/9617",
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/train/dpo/trainer.py",
        "https://github.com/huggingface/trl/blob/v0.24.0/trl/trainer/dpo_trainer.py",
    ),
    cell="llamafactory-llama.lm-W1-K1-objective:dpo_ipo",
    patch="llamafactory-pref-loss",
    measured={
        "llamafactory-llama.lm-W1-K1-objective:dpo_ipo [0.9.2]": 6.9e-07,
        "llamafactory-llama.lm-W1-K1-objective:dpo_ipo [0.9.3]": 6.9e-07,
        "llamafactory-llama.lm-W1-K1-objective:dpo_ipo [0.9.4]": 0.99,
        "llamafactory-llama.lm-W1-K1-objective:dpo_ipo [0.9.5]": 0.99,
        "llamafactory-llama.lm-W1-K1-objective:dpo_hinge [0.9.2]": 7.8e-07,
        "llamafactory-llama.lm-W1-K1-objective:dpo_hinge [0.9.3]": 7.8e-07,
        "llamafactory-llama.lm-W1-K1-objective:dpo_hinge [0.9.4]": 0.51,
        "llamafactory-llama.lm-W1-K1-objective:dpo_hinge [0.9.5]": 0.51,
    },
    details=(
        "For ipo the log-probabilities are means per token all the same, so that beta is off as well. With the cure kto_pair is refused "
        "by TRL, which no longer has it. orpo and simpo are LLaMA-Factory's own and right."
    ),
)


def _compute_preference_loss(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    if "loss_type" not in inspect.signature(self.dpo_loss).parameters:
        return original(self, *args, **kwargs)
    self.dpo_loss = functools.partial(self.dpo_loss, loss_type=self.loss_type)
    try:
        return original(self, *args, **kwargs)
    finally:
        del self.dpo_loss


PATCH = Patch(
    advisory=ADVISORY,
    module="llamafactory.train.dpo.trainer",
    around={"CustomDPOTrainer.compute_preference_loss": _compute_preference_loss},
    relies_on=(
        "CustomDPOTrainer.compute_preference_loss",
        "CustomDPOTrainer.concatenated_forward",
        "CustomDPOTrainer.dpo_loss",
    ),
    fingerprints={
        "47e5554514dbf0938e3443ef8f649cb30c9fd1172dea56bc10422f6a87606c20": "0.9.4 .. 0.9.5",
    },
)
