"""The likelihood term beside a preference loss is averaged over a micro-batch's tokens, then over micro-batches and ranks.

ORPO, CPO (``cpo_alpha`` above 0) and DPO with "sft" among its losses add a token mean over the chosen sequences. It is taken
in each micro-batch by itself, and the trainer divides the sum by the accumulation steps, so that a token weighs the
more the fewer tokens its micro-batch has. That is right for the pairs, of which every micro-batch has as many, and the same
mistake for tokens that https://github.com/huggingface/transformers/pull/34191 removed from supervised training.
"""

from __future__ import annotations

from ..advisory import Advisory

_TERM = ("orpo", "cpo", "dpo_sft")

ADVISORY = Advisory(
    id="truestep-2026-20",
    framework="trl",
    title="ORPO, CPO and DPO with an sft term: the likelihood term is a mean of micro-batch means",
    affected=(("0.12.0", None),),
    trigger=({"objective": _TERM, "K": {"min": 2}}, {"objective": _TERM, "world_size": {"min": 2}}),
    signature=("re-weighted", "unexplained", "loss"),
    links=(
        "https://huggingface.co/docs/trl/orpo_trainer",
        "https://huggingface.co/docs/trl/dpo_trainer#multi-loss-combinations",
        "https://github.com/huggingface/transformers/pull/34191",
    ),
    cell="trl-llama.lm-W1-K4-objective:cpo",
    measured={
        "trl-llama.lm-W1-K1-objective:orpo [1.16.0]": 7.4e-07,
        "trl-llama.lm-W1-K2-objective:orpo [1.16.0]": 0.0647,
        "trl-llama.lm-W1-K4-objective:orpo [1.16.0]": 0.0576,
        "trl-llama.lm-W1-K1-objective:cpo [1.16.0]": 9.4e-07,
        "trl-llama.lm-W1-K4-objective:cpo [1.16.0]": 0.0381,
        "trl-llama.lm-W1-K4x2-objective:cpo [0.15.2]": 0.0381,
        "trl-llama.lm-W1-K8-objective:cpo [0.15.2]": 0.11,
        "trl-llama.lm-W1-K1-objective:dpo_sft [0.25.1]": 7.1e-07,
        "trl-llama.lm-W1-K4x2-objective:dpo_sft [0.25.1]": 0.0234,
        "trl-llama.lm-W1-K4x2-objective:orpo [0.25.1]": 0.0576,
        "trl-llama.lm-W1-K4x2-objective:cpo [0.25.1]": 0.0381,
    },
    details=(
        "Pages of the documentation call the term the mean negative log-likelihood of the chosen responses and do not tie "
        "it to a micro-batch. One micro-batch per step, or chosen sequences of equal length, hide it. To be safe, keep "
        "gradient_accumulation_steps at 1 and one rank, or leave the term out (cpo_alpha=0, loss_type without sft). "
        "ORPO's gradient is such a mean of means to 5e-7 of its norm; least squares cannot always tell its many tokens "
        "apart and then calls it unexplained. Before 0.14 (CPO) and 0.20 (ORPO) everything is also too large by the "
        "accumulation steps."
    ),
)
