"""5.2.0 to 5.5: the Trainer hands its accumulation steps to accelerate too, whose backward divides by them once more.

Every loss that is already a share of the whole window comes out divided by K again: the gradient is 1/K of what it should be, and
the loss that is logged is right. Heads that are never divided at all (#47688) have the right gradient here by
accident, and a log that is K times too large. From 5.5.4 on the Trainer tells accelerate of one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE
from ._trainer import FACTS, SEVERAL

_HERE: dict[str, Any] = {**FACTS, "K": SEVERAL, "engine": ("none",)}

ADVISORY = Advisory(
    id="truestep-2026-51",
    framework="transformers",
    title="Every step with gradient accumulation uses 1/K of the gradient, while the logged loss is right",
    affected=(("5.2.0", "5.5.4"),),
    trigger=(_HERE,),
    signature=("scaled", "re-weighted", "loss", "norm", "unexplained", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/blob/v5.2.0/src/transformers/trainer.py",
        "https://github.com/huggingface/accelerate/blob/v1.14.0/src/accelerate/accelerator.py",
    ),
    cell="transformers-llama.lm-W1-K4-batch:prompted",
    patch="truestep-2026-51",
    measured={
        "transformers-llama.lm-W1-K4-batch:prompted [5.1.0]": 1.3e-07,
        "transformers-llama.lm-W1-K4-batch:prompted [5.2.0]": 0.75,
        "transformers-llama.lm-W1-K4-batch:prompted [5.4.0]": 0.75,
        "transformers-llama.lm-W1-K4-batch:prompted [5.5.3]": 0.75,
        "transformers-llama.lm-W1-K4-batch:prompted [5.5.4]": 1.3e-07,
    },
    details=(
        "No report known. Adam hides the scale of a gradient, clipping and SGD do not. Figures of the standalone script. "
        "The patch belongs together with that of transformers-47688: cured alone, heads that are right by accident are not."
    ),
)


def _create_accelerator(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    result = original(self, *args, **kwargs)
    # DeepSpeed divides by itself: accelerate's backward leaves it alone and only tells it how many steps there are
    if not self.is_deepspeed_enabled and self.accelerator.gradient_accumulation_steps != 1:
        self.accelerator.gradient_accumulation_steps = 1
    return result


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.create_accelerator_and_postprocess": _create_accelerator},
    relies_on=("Trainer.create_accelerator_and_postprocess", "Trainer.training_step"),
    fingerprints={
        "e03892f42c28881246364da5d075715fafcb4c007b5ba7f1210991cf980dd468": "5.2.0 .. 5.5.3",
    },
)
