"""With dynamic batches the losses that train_ppo_ray logs are means over what is to be summed, from 0.10.3 on.

A micro-batch's loss is then its part of the step's: the tokens' sum over the tokens of the whole step. The actor's log takes the mean
of the parts weighted by tokens, the critic's the plain mean: about one over the number of micro-batches of the loss. The step is right.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._dynamic import DYNAMIC

ADVISORY = Advisory(
    id="truestep-2026-82-dynamic",
    framework="openrlhf",
    title="With dynamic batches the losses that are logged are divided by the number of micro-batches",
    affected=(("0.10.3", None),),
    trigger=({**DYNAMIC, "loss": ("logged",), "K": {"min": 2}},),
    signature=("loss",),
    links=("https://github.com/OpenRLHF/OpenRLHF/commit/df78645e",),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3-loss:logged",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3-loss:logged [0.10.3]": 0.72,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3-loss:logged [0.11.2]": 0.72,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic-stage:3-loss:logged [0.10.3]": 0.75,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic-stage:3-loss:logged [0.11.2]": 0.75,
    },
    details="No report is known. In 0.10.2 the log is right.",
)
