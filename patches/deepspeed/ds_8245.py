"""A loss that forward returns beside what it was computed from is divided by the accumulation steps more than once.

It came with https://github.com/deepspeedai/DeepSpeed/pull/7665 (0.18.3): a hook on every output of the engine divides the
gradient that passes through it, and the gradient of the loss passes through the logits next to it as well.
https://github.com/deepspeedai/DeepSpeed/pull/8245 (0.19.6) divides the loss itself, once; its subject, issue #8224, is a part of
the loss that went by the engine and was not divided at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="deepspeed-8245",
    framework="deepspeed",
    title="The gradient is divided by the accumulation steps once for every output of forward that it passes through",
    affected=(("0.18.3", "0.19.6"),),
    trigger=(
        {
            "returns": ("both",),
            "backward": ("engine",),
            "accumulate": ("managed", "boundary_k"),
            "K": {"min": 2},
            "stage": (0, 1, 2),
        },
        {
            # a value head returns its values beside the output of the backbone
            "framework": ("openrlhf",),
            "objective": ("reward", "reward_margin", "ppo_value", "ppo_value_sequence", "ppo_value_gae", "ppo_value_gae_turns"),
            "K": {"min": 2},
            "stage": (0, 1, 2),
        },
    ),
    signature=("scaled", "norm", "clipped", "unexplained"),  # clipped: the 1e-6 beside a norm that is too small by K
    links=(
        "https://github.com/deepspeedai/DeepSpeed/pull/8245",
        "https://github.com/deepspeedai/DeepSpeed/pull/7665",
        "https://github.com/deepspeedai/DeepSpeed/issues/8224",
    ),
    cell="deepspeed-mlp-W1-K4-returns:both",
    patch="deepspeed-8245",
    measured={
        "deepspeed-mlp-W1-K4-returns:both [0.18.2]": 1.3e-07,
        "deepspeed-mlp-W1-K4-returns:both [0.18.3]": 0.75,
        "deepspeed-mlp-W1-K4-returns:both [0.18.9]": 0.75,
        "deepspeed-mlp-W1-K4-returns:both [0.19.5]": 0.75,
        "deepspeed-mlp-W1-K4-returns:both [0.19.6]": 1.3e-07,
        "deepspeed-mlp-W1-K4-stage:1-returns:both [0.19.5]": 0.75,
        "deepspeed-mlp-W1-K4-stage:2-returns:both [0.19.5]": 0.75,
        "deepspeed-mlp-W1-K4-stage:3-returns:both [0.19.5]": 1.3e-07,
        "deepspeed-mlp-W2-K4-stage:2-returns:both [0.19.5]": 0.75,
        "deepspeed-llama-W1-K4-stage:1-returns:both [0.19.5]": 0.75,
        "openrlhf-llama.value-W1-K4-objective:reward [0.18.9 under openrlhf 0.11.2]": 0.75,
        "openrlhf-llama.value-W1-K4-objective:reward [0.19.6 under openrlhf 0.11.2]": 7.2e-07,
    },
    details=(
        "Every model of transformers that is given labels returns loss and logits: in a loop of one's own, with accelerate or without, "
        "its whole gradient is divided by K squared at stages 0 to 2. The Trainer divides on its own and says so (from transformers "
        "4.49 on). With output_hidden_states every layer adds a division for those below it: 1/256 for the embedding of two layers at "
        "K = 4. Reward models and critics of OpenRLHF: the backbone alone, so that no learning rate makes up for it. ZeRO-3 hands out "
        "copies of the outputs and is right. What engine.backward returns is right, and so is what is logged."
    ),
)
_DIVIDED = "_truestep_loss_is_divided"


def _backward(
    original: Callable[..., Any], engine: Any, loss: Any, retain_graph: bool = False, scale_wrt_gas: bool = True
) -> Any:
    if not scale_wrt_gas:
        return original(engine, loss, retain_graph, scale_wrt_gas=False)
    setattr(engine, _DIVIDED, True)
    try:
        return original(engine, loss / engine.gradient_accumulation_steps(), retain_graph, scale_wrt_gas=False)
    finally:
        delattr(engine, _DIVIDED)
        engine._scale_wrt_gas = True  # as a loss.backward() after this call finds it without the patch


def _at_output(original: Callable[..., Any], engine: Any, grad: Any) -> Any:
    return grad if _DIVIDED in vars(engine) else original(engine, grad)


PATCH = Patch(
    advisory=ADVISORY,
    module="deepspeed.runtime.engine",
    around={
        "DeepSpeedEngine.backward": _backward,
        "DeepSpeedEngine._backward_prologue_per_tensor": _at_output,
    },
    relies_on=(
        "DeepSpeedEngine.backward",
        "DeepSpeedEngine._backward_prologue_per_tensor",
        "DeepSpeedEngine._backward_prologue",
    ),
    fingerprints={
        "2295fa60fef7378077e0b6441d8ce0d1c9df43b81cfb77b814ec443f738c1a15": "0.18.3",
        "8a2c05f843c80afadc53a3c86cb218aaeadf011859f04c210953244388f08a38": "0.18.4",
        "dcad45185714659c05966f3f59bf9761cdeea52869418b50740330cf3a607bf2": "0.18.5 .. 0.19.0",
        "1f9b3ea4704796664bab13621566e627bcd63b73519b763ae3f572d159e63563": "0.19.1 .. 0.19.3",
        "94b3b6346d67c773a72eea15ccd60e0566d2fa40946027e6a7327539f47637a9": "0.19.4",
        "b0502576f7f20b6957b75a18114f23b01966baea53d869e37881bf2f7c05b6b3": "0.19.5",
    },
)
