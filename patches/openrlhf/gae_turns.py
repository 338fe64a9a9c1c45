"""Generalised advantages over several turns: what the environment says counts as states that are worth nothing.

``get_advantages_and_returns`` sets the values of tokens that are no actions to 0 and walks over them all the same. The last token of a
turn is then followed by a state of value 0 instead of the one in which the policy answers next (arXiv 1506.02438, equations 10 and 16),
and every token of the environment discounts what comes later by gamma * lambda once more. With gamma = lambda = 1, the defaults, the sums
telescope and nothing is wrong. No report is known for OpenRLHF; the same mistake was mended elsewhere:
https://github.com/verl-project/verl/pull/2337, https://github.com/radixark/miles/pull/1827
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="truestep-2026-84",
    framework="openrlhf",
    title="GAE over several turns: a turn ends in a state worth 0, and the environment's tokens discount all that follows",
    affected=(("0.9.0", None),),
    trigger=({"framework": ("openrlhf",), "objective": ("ppo_gae_turns", "ppo_value_gae_turns")},),
    signature=("re-weighted", "scaled", "unexplained", "loss", "norm"),
    links=(
        "https://github.com/verl-project/verl/pull/2337",
        "https://github.com/radixark/miles/pull/1827",
        "https://github.com/OpenRLHF/OpenRLHF#design-paradigm-agent-based-execution",
    ),
    cell="openrlhf-llama.lm-W1-K1-objective:ppo_gae_turns-batch:prompted",
    patch="truestep-2026-84",
    measured={
        "openrlhf-llama.lm-W1-K1-objective:ppo_gae_turns-batch:prompted [0.9.0]": 0.076,
        "openrlhf-llama.value-W1-K1-objective:ppo_value_gae_turns-batch:prompted [0.9.0]": 0.075,
        "openrlhf-llama.lm-W1-K1-objective:ppo_gae_turns-batch:prompted [0.10.2]": 0.076,
        "openrlhf-llama.value-W1-K1-objective:ppo_value_gae_turns-batch:prompted [0.10.2]": 0.075,
        "openrlhf-llama.lm-W1-K1-objective:ppo_gae_turns-batch:prompted [0.10.4]": 0.076,
        "openrlhf-llama.value-W1-K1-objective:ppo_value_gae_turns-batch:prompted [0.10.4]": 0.075,
        "openrlhf-llama.lm-W1-K1-objective:ppo_gae_turns-batch:prompted [0.11.2]": 0.076,
        "openrlhf-llama.value-W1-K1-objective:ppo_value_gae_turns-batch:prompted [0.11.2]": 0.075,
    },
    details="The README lets any algorithm train on several turns. Measured with one token of the environment in a sample; alone "
    "(a reward of 1 at the end, values 0.5, gamma 1, lambda 0.95) a hundred of them turn the advantage of the token before them from "
    "0.43 to -0.49 and the critic's target from 0.93 to 0.006. Discounted returns (REINFORCE++ with gamma below 1) count such tokens "
    "too: that is a choice of what time is and is left as it is.",
)


def _get_advantages_and_returns(
    original: Callable[..., Any], maker: Any, values: Any, rewards: Any, action_mask: Any, *given: Any, **named: Any
) -> Any:
    """The original on the actions alone, moved together: [B, A] each, 0 where there is no action."""
    import torch

    if action_mask is None or not isinstance(values, torch.Tensor):
        return original(maker, values, rewards, action_mask, *given, **named)
    actions = action_mask.bool()
    order = actions.logical_not().long().argsort(dim=1, stable=True)
    moved = [t.gather(1, order) for t in (values, rewards, action_mask)]
    found = original(maker, *moved, *given, **named)
    return tuple(torch.zeros_like(t).scatter(1, order, t) * actions for t in found)


PATCH = Patch(
    advisory=ADVISORY,
    module="openrlhf.trainer.ppo_utils.experience_maker",
    around={"RemoteExperienceMaker.get_advantages_and_returns": _get_advantages_and_returns},
    relies_on=("RemoteExperienceMaker.get_advantages_and_returns", "RemoteExperienceMaker.compute_advantages_and_returns"),
    fingerprints={
        "64f25dfb1d993aa2cc8575639aee270e579100bd6e9d6f592d1f997b469e081c": "0.9.0",
        "a75a5419ff00e9993c0f6f91560e60b2243a15d0abc491a309b8cd281f823326": "0.10.2, 0.10.4",
        "b09aa65687e6ad05a49554595700ccafad64b8bdc36e7fa2526451e29e4430f9": "0.11.2",
    },
)
