"""TPO: the likelihood term is averaged over a micro-batch's gold tokens, then over micro-batches and ranks.

As in ``nll_mean_of_means.py``: a token weighs the more the fewer gold tokens its micro-batch has. The documentation calls ``tpo_alpha``
the weight of the negative log-likelihood of the gold response and ties it to no micro-batch.
"""

from __future__ import annotations

from ..advisory import Advisory

_TERM = ("tpo", "tpo_l")

ADVISORY = Advisory(
    id="truestep-2026-71",
    framework="trl",
    title="TPO: the likelihood term is a mean of micro-batch means",
    affected=(("1.9.2", None),),
    trigger=({"objective": _TERM, "K": {"min": 2}}, {"objective": _TERM, "world_size": {"min": 2}}),
    signature=("re-weighted", "unexplained", "loss"),
    links=(
        "https://huggingface.co/docs/trl/tpo_trainer",
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/experimental/tpo/tpo_trainer.py",
        "https://github.com/huggingface/transformers/pull/34191",
    ),
    cell="trl-llama.lm-W1-K4-objective:tpo",
    measured={
        "trl-llama.lm-W1-K4-objective:tpo [1.9.2]": 0.107,
        "trl-llama.lm-W1-K1-objective:tpo_l [1.9.2]": 6.3e-07,
        "trl-llama.lm-W1-K4-objective:tpo [1.10.0]": 0.107,
        "trl-llama.lm-W1-K4-objective:tpo [1.14.0]": 0.107,
        "trl-llama.lm-W1-K1-objective:tpo [1.16.0]": 7.3e-07,
        "trl-llama.lm-W1-K4-objective:tpo [1.16.0]": 0.107,
        "trl-neox.lm-W2-K1-objective:tpo [1.16.0]": 0.0326,
    },
    details="One micro-batch per step, gold completions of equal length or tpo_alpha=0 avoid it.",
)
