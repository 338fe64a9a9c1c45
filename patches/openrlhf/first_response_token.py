"""From 0.6.2 to 0.6.4 the labels of train_sft begin one token late: the first token of a response is never trained.

https://github.com/OpenRLHF/OpenRLHF/issues/973, from https://github.com/OpenRLHF/OpenRLHF/pull/781 on. The evaluation of the same
releases counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="openrlhf-781",
    framework="openrlhf",
    title="The first token of every response is not trained",
    affected=(("0.6.2", "0.7.0"),),
    trigger=({"framework": ("openrlhf",), "objective": ("response_mean", "turns")},),
    signature=("misaligned", "re-weighted", "dropped", "scaled", "loss", "unexplained", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/781", "https://github.com/OpenRLHF/OpenRLHF/issues/973"),
    cell="openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted",
    patch="openrlhf-781",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted [0.6.4]": 1.1,
        "openrlhf-llama.lm-W1-K1-objective:response_mean-batch:prompted [0.5.0]": 6.8e-07,
    },
    details="With 0.7.0 the same mistake moved into the data set (openrlhf-973).",
)


class Earlier:
    """A loader whose prompts seem one token shorter, which makes the labels begin where they should."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for prompts, *rest in self._loader:
            yield [max(0, int(n) - 1) for n in prompts], *rest


def _fit(original: Callable[..., Any], trainer: Any, *given: Any, **named: Any) -> Any:
    loader = trainer.train_dataloader
    trainer.train_dataloader = Earlier(loader)
    try:
        return original(trainer, *given, **named)
    finally:
        trainer.train_dataloader = loader


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.sft_trainer",
    around={"SFTTrainer.fit": _fit},
    relies_on=("SFTTrainer.fit",),
    fingerprints={
        "45fa87658f623616410526295f381245c64210e5383027c5094c60100d765fff": "0.6.2 .. 0.6.4",
    },
)
