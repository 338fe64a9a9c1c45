"""``train_rm --loss logexp`` takes a margin and does not use it: --margin_loss changes nothing.

LogExpLoss has the argument and leaves it alone (https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/models/loss.py); with
--loss sigmoid, the same function written otherwise, the margin counts. No report is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="truestep-2026-76",
    framework="openrlhf",
    title="--loss logexp ignores --margin_loss",
    affected=(("0.5.0", None),),
    trigger=({"framework": ("openrlhf",), "objective": ("reward_margin",), "pairwise": ("logexp",)},),
    signature=("re-weighted", "loss", "norm", "unexplained"),
    links=("https://github.com/OpenRLHF/OpenRLHF/blob/main/openrlhf/models/loss.py",),
    cell="openrlhf-llama.value-W1-K4-objective:reward_margin-pairwise:logexp",
    patch="truestep-2026-76",
    measured={
        "openrlhf-llama.value-W1-K4-objective:reward_margin-pairwise:logexp [0.5.0]": 0.319,
        "openrlhf-llama.value-W1-K4-objective:reward_margin-pairwise:logexp [0.9.0]": 0.319,
        "openrlhf-llama.value-W1-K4-objective:reward_margin-pairwise:logexp [0.11.2]": 0.319,
    },
    details="Use --loss sigmoid, which is the same function and takes the margin.",
)


def _forward(original: Callable[..., Any], loss: Any, chosen_reward: Any, reject_reward: Any, margin: Any = None) -> Any:
    return original(loss, chosen_reward if margin is None else chosen_reward - margin, reject_reward)


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.models.loss",
    around={"LogExpLoss.forward": _forward},
    relies_on=("LogExpLoss.forward",),
    fingerprints={
        "b9852d2b6908cd2dbe95ee6274d472bca262132c31433e23cb1473f93404d067": "0.5.0 .. 0.11.2",
    },
)
