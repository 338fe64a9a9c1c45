"""From 0.10.4 to 0.11.1 the tokens of a window are counted epoch by epoch, while DeepSpeed's windows go on over its end.

https://github.com/OpenRLHF/OpenRLHF/pull/1249 counts the micro-batches of an epoch in groups of K, the last of them what is left;
DeepSpeed steps after every K micro-batches whatever the epoch. Where an epoch is no multiple of K micro-batches, every step from
the first such end on is divided by other samples' tokens. 0.11.2 lets its windows span epochs. No report is known.
"""

from __future__ import annotations

from ..advisory import Advisory
from ..patch import Patch
from .sft_mean_of_means import SFT, fit

ADVISORY = Advisory(
    id="truestep-2026-83",
    framework="openrlhf",
    title="Where an epoch is no multiple of the accumulation steps, a step is divided by the tokens of other windows",
    affected=(("0.10.4", "0.11.2"),),
    trigger=({**SFT, "spanning": (True,)},),
    signature=("re-weighted", "scaled", "loss", "norm"),
    links=("https://github.com/OpenRLHF/OpenRLHF/pull/1249",),
    cell="openrlhf-llama.lm-W1-K4x3b4e2-objective:response_mean-batch:prompted",
    patch="truestep-2026-83",
    measured={
        "openrlhf-llama.lm-W1-K4x3b4e2-objective:response_mean-batch:prompted [0.10.4]": 1.08,
        "openrlhf-llama.lm-W1-K4x3b4e2-objective:response_mean-batch:prompted [0.11.1]": 1.08,
        "openrlhf-llama.lm-W1-K4x3b4e2-objective:response_mean-batch:prompted [0.11.2]": 8.3e-07,
        "openrlhf-llama.lm-W1-K2x2e2-objective:response_mean-batch:prompted [0.11.1]": 8.7e-07,
    },
    details="Up to 0.10.3 the same windows are a mean of means (openrlhf-1249).",
)

PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.sft_trainer",
    around={"SFTTrainer.fit": fit},
    relies_on=("SFTTrainer.fit", "SFTTrainer.__init__", "openrlhf.utils.loss_utils:iter_grad_accum_global_norm"),
    fingerprints={"ac7aaa56eb017bb92e0f79e540de3d4ca65f17c2fa90a1d9c31d11e68bb211d4": "0.10.4 .. 0.11.1"},
)
