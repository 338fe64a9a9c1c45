"""KTO with ``pref_ftx``: the likelihood term is multiplied by batch / liked where it is meant to be multiplied by liked / batch.

The term is a mean over the liked samples of a micro-batch; divided by their number and multiplied by that of all samples, it is not
the mean over any set of samples, and how much a sample weighs depends on what else is in its micro-batch. Not reported upstream as
far as is known; the source of the main branch of 2026-08-18 is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="llamafactory-kto-ftx",
    framework="llamafactory",
    title="KTO: the term of pref_ftx weighs batch^2 / liked^2 times what it should, micro-batch by micro-batch",
    affected=(("0.9.3", None),),
    trigger=({"framework": ("llamafactory",), "objective": ("kto_ftx",)},),
    signature=("re-weighted", "unexplained", "loss", "norm", "clipped"),
    links=(
        "https://github.com/hiyouga/LLaMA-Factory/commit/d0edcde4e",
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/train/kto/trainer.py",
    ),
    cell="llamafactory-llama.lm-W1-K1-objective:kto_ftx",
    patch="llamafactory-kto-ftx",
    measured={
        "llamafactory-llama.lm-W1-K1-objective:kto_ftx [0.9.3]": 0.51,
        "llamafactory-llama.lm-W1-K1-objective:kto_ftx [0.9.4]": 0.51,
        "llamafactory-llama.lm-W1-K1-objective:kto_ftx [0.9.5]": 0.51,
        "llamafactory-llama.lm-W1-K8-objective:kto_ftx [0.9.3]": 1,
        "llamafactory-llama.lm-W1-K8-objective:kto_ftx [0.9.4]": 1,
        "llamafactory-llama.lm-W1-K8-objective:kto_ftx [0.9.5]": 1,
    },
    details=(
        "No documentation says over what the term is averaged. The same option of DPO adds it to the loss of every sample; so "
        "understood, a micro-batch where half of the samples are liked has four times the coefficient. Right where all are liked."
    ),
)


def _loss(original: Callable[..., Any], self: Any, model: Any, batch: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    asked, share = self.ftx_gamma, float(batch["kto_tags"].float().mean())
    self.ftx_gamma = asked * share * share
    try:
        return original(self, model, batch, *args, **kwargs)
    finally:
        self.ftx_gamma = asked


PATCH = Patch(
    advisory=ADVISORY,
    module="llamafactory.train.kto.trainer",
    around={"CustomKTOTrainer.get_batch_loss_metrics": _loss},
    relies_on=("CustomKTOTrainer.get_batch_loss_metrics",),
    fingerprints={
        "baf9891332cdc650d80d7bd6608632ad2e8f8cde8b6850677e3da48066898f38": "0.9.3 .. 0.9.5",
    },
)
