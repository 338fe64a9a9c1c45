"""Up to 0.10.2 dynamic batches are means over tokens weighted by samples: neither a mean over tokens nor one over samples.

A micro-batch's loss is the mean over its own tokens, times its part of the step's samples (``dynamic_loss_scale``). Dynamic batches
are filled by tokens, so that their numbers of samples differ most. 0.10.3 divides by the tokens of the step
(https://github.com/OpenRLHF/OpenRLHF/commit/df78645e).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._dynamic import DYNAMIC
from ._rl_window import over_ranks, ranks

ADVISORY = Advisory(
    id="truestep-2026-81",
    framework="openrlhf",
    title="Dynamic batches are weighted by their samples, not by their tokens",
    affected=(("0.9.0", "0.10.3"),),
    trigger=({**DYNAMIC, "K": {"min": 2}, "objective": {"not": ("gspo",)}},),
    signature=("re-weighted", "scaled", "unexplained", "loss", "norm"),
    links=(
        "https://github.com/OpenRLHF/OpenRLHF/pull/1078",
        "https://github.com/OpenRLHF/OpenRLHF/commit/df78645e",
    ),
    cell="openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3",
    patch="truestep-2026-81",
    measured={
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3 [0.9.0]": 0.12,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3 [0.10.2]": 0.12,
        "openrlhf-llama.value-W1-K4-objective:ppo_value-batch:prompted-batching:dynamic-stage:3 [0.10.2]": 0.13,
        "openrlhf-llama.lm-W1-K4-objective:ppo-batch:prompted-batching:dynamic-stage:3 [0.11.2]": 1.1e-06,
    },
    details="No report is known. Patched, it was never run with a router's loss: there, and with GSPO, the patch changes nothing.",
)


def _setup(original: Callable[..., Any], buffer: Any, strategy: Any, *given: Any, **named: Any) -> Any:
    result = original(buffer, strategy, *given, **named)
    if _is_mean_over_tokens(strategy.args):
        buffer.dynamic_loss_scale = _by_tokens(buffer)
    return result


def _is_mean_over_tokens(args: Any) -> bool:
    actor = getattr(args, "actor", args)
    return bool(actor.policy_loss_type == "ppo" and actor.aux_loss_coef <= 1e-8)


def _by_tokens(buffer: Any) -> list[float]:
    """One weight a micro-batch, in their order; the mean over ranks is the engine's."""
    scales: list[float] = []
    own: list[float] = []
    for indices, ends in zip(buffer.dynamic_indices, buffer.dynamic_optimizer_step, strict=True):
        own.append(float(sum(int(buffer.items[i].action_mask.sum()) for i in indices)))
        if ends:
            whole = over_ranks(sum(own))
            scales += [count * ranks() / whole for count in own]
            own = []
    return scales


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.ppo_utils.replay_buffer",
    around={"NaiveReplayBuffer.setup_dynamic_batch": _setup},
    relies_on=(
        "NaiveReplayBuffer.setup_dynamic_batch",
        "openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer.training_step",
        "openrlhf.trainer.ray.ppo_critic:CriticPPOTrainer.training_step",
        "openrlhf.models.loss:PolicyLoss.forward",
        "openrlhf.models.loss:ValueLoss.forward",
    ),
    fingerprints={
        "816c73339a83028507335f3140aad29c7072934c61a69b59a939a93e7fc1255b": "0.9.0",
        "645ba254fae7e8c66ceed26dcd87819d011aaae571fa66fb585bf51417aa9788": "0.10.2",
    },
)
