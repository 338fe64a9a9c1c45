"""Up to 0.10.3 train_sft averages every micro-batch over its own tokens, then the micro-batches.

Found in arXiv 2604.23747. https://github.com/OpenRLHF/OpenRLHF/pull/1249 divides by the tokens of the whole optimizer step.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from importlib.metadata import version as installed
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._window import Ahead, Window
from .first_response_token import ADVISORY as LATE
from .first_response_token import Earlier

SFT: dict[str, Any] = {
    "framework": ("openrlhf",),
    "objective": ("response_mean", "whole_mean", "turns"),
    "batch": {"not": ("equal",)},
}

ADVISORY = Advisory(
    id="openrlhf-1249",
    framework="openrlhf",
    title="A mean of means: tokens of a micro-batch that has few of them weigh more",
    affected=(("0.5.0", "0.10.4"),),
    trigger=({**SFT, "K": {"min": 2}},),
    signature=("re-weighted", "scaled", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249", "https://arxiv.org/abs/2604.23747"),
    cell="openrlhf-llama.lm-W1-K4-objective:response_mean-batch:prompted",
    patch="openrlhf-1249",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:response_mean-batch:prompted [0.5.0]": 0.11,
        "openrlhf-llama.lm-W1-K8-objective:response_mean-batch:prompted [0.5.0]": 0.37,
        "openrlhf-llama.lm-W1-K8-objective:response_mean-batch:prompted [0.9.0]": 0.37,
        "openrlhf-llama.lm-W1-K8-objective:response_mean-batch:prompted [0.10.2]": 0.37,
        "openrlhf-llama.lm-W1-K8-objective:response_mean-batch:prompted [0.10.3]": 0.37,
        "openrlhf-llama.lm-W1-K4x3b2e2-objective:response_mean-batch:prompted [0.10.3]": 0.84,
        "openrlhf-llama.lm-W1-K8-objective:response_mean-batch:prompted [0.11.2]": 5.3e-07,
    },
    details="Patched, it was never run with packed samples or ring attention, which need a GPU: there the patch leaves everything as it is.",
)


class _Weighted:
    """The loss of a micro-batch, as much of the step's as its tokens are; whatever else is asked of it, the loss that it is around."""

    def __init__(self, loss: Any, window: Window) -> None:
        self._loss, self._window = loss, window

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loss, name)

    def __call__(self, *given: Any, **shares: Any) -> Any:
        import torch

        if not torch.is_grad_enabled():  # an evaluation
            return self._loss(*given, **shares)
        del shares  # 0.10.3 has the tokens of the ranks' micro-batches here: without them it is the mean over this one
        return self._loss(*given) * self._window.weight()


def fit(original: Callable[..., Any], trainer: Any, *given: Any, **named: Any) -> Any:
    strategy = trainer.strategy
    if trainer.packing_samples or getattr(strategy, "ring_attn_group", None) is not None:
        warnings.warn(
            "truestep's patches openrlhf-1249 and truestep-2026-83 are not for packed samples or ring attention: nothing was changed", stacklevel=2
        )
        return original(trainer, *given, **named)
    loader, loss = trainer.train_dataloader, trainer.loss_fn
    window = Window(strategy.accumulated_gradient, strategy.world_size, functools.partial(_over_ranks, trainer))
    trainer.train_dataloader = Ahead(
        loader, window, functools.partial(_tokens, trainer), lambda epoch: epoch >= trainer.epochs - 1
    )
    trainer.loss_fn = _Weighted(loss, window)
    try:
        return original(trainer, *given, **named)
    finally:
        trainer.train_dataloader, trainer.loss_fn = loader, loss


def _over_ranks(trainer: Any, number: float) -> float:
    import torch

    whole = torch.tensor(number, dtype=torch.float64, device=next(trainer.model.parameters()).device)
    torch.distributed.all_reduce(whole)
    return float(whole)


def _tokens(trainer: Any, batch: Any) -> float:
    """How many tokens of a batch are trained, as the release decides it: by a mask since 0.7.0, by the prompts' lengths before."""
    if len(batch) == 3:  # inputs, attention, mask: each [B, 1, T] or [B, T]
        return float(batch[2].reshape(-1, batch[2].shape[-1])[:, :-1].sum())
    prompts, _, attention, _ = batch
    attention = attention.reshape(-1, attention.shape[-1]).bool()
    # where that cure lies around the loader that is read here, the trainer sees shorter prompts than this
    late = int(_starts_late() and not isinstance(trainer.train_dataloader, Earlier))
    begins = [0 if trainer.pretrain_mode else int(n) + late for n in prompts]
    # the first token of all has none before it that could predict it
    return float(sum(int(row[max(1, begin) :].sum()) for row, begin in zip(attention, begins, strict=True)))


def _starts_late() -> bool:
    """Whether this release leaves out the first token of a response (openrlhf-781)."""
    from packaging.version import Version

    release = Version(installed("openrlhf"))
    return any(Version(first) <= release < Version(str(fixed)) for first, fixed in LATE.affected)


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.sft_trainer",
    around={"SFTTrainer.fit": fit},
    relies_on=("SFTTrainer.fit", "SFTTrainer.__init__"),
    fingerprints={
        "1a973484cb8d0dbdd048a58f202e642b36690d1fe4eccb6a962758ab49f996be": "0.5.0",
        "71a9b8e8aa32dc0a953f98cc5eac2eec98cd27e808e06c824b07409f657fe0b3": "0.6.1",
        "b42efda578ca7deafab57ee2e65bc5d1180a7b938fe4a3c577b50d3a66afadce": "0.6.2 .. 0.6.4",
        "b64486b909ab0ce4100040ff8a602544b2d9494660c45009360ec4ab4271f72e": "0.7.0.post1 .. 0.9.0",
        "2cf146067365bf276dab593ef879fb401ab3c4f4f291e635e35bf994c038cfe9": "0.10.2",
        "e7c7342df94e498a72809d70f8c7af3de85774908f7a8eb149cd01a10e12e429": "0.10.3",
    },
)
