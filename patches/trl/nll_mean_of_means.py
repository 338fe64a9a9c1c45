"""The likelihood term beside a preference loss is averaged over a micro-batch's tokens, then over micro-batches and ranks.

ORPO, CPO (``cpo_alpha`` above 0) and DPO with "sft" among its losses add a token mean over the chosen sequences. It is taken
in each micro-batch by itself, and the trainer divides the sum by the accumulation steps, so that a token weighs the
more the fewer tokens its micro-batch has. That is right for the pairs, of which every micro-batch has as many, and the same
mistake for tokens that https://github.com/huggingface/transformers/pull/34191 removed from supervised training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..advisory import Advisory, Alternative
from ..patch import Patch
from ._likelihood import share, watch_windows


def _trigger(objective: str) -> tuple[Alternative, ...]:
    return {"objective": (objective,), "K": {"min": 2}}, {"objective": (objective,), "world_size": {"min": 2}}


_ORPO = Advisory(
    id="truestep-2026-20",
    framework="trl",
    title="ORPO: the likelihood term is a mean of micro-batch means",
    affected=(("0.11.4", None),),
    trigger=_trigger("orpo"),
    signature=("re-weighted", "unexplained", "loss"),
    links=(
        "https://huggingface.co/docs/trl/orpo_trainer",
        "https://github.com/huggingface/transformers/pull/34191",
    ),
    cell="trl-llama.lm-W1-K4-objective:orpo",
    patch="truestep-2026-20",
    measured={
        "trl-llama.lm-W1-K4-objective:orpo [0.11.4]": 0.0576,
        "trl-llama.lm-W1-K1-objective:orpo [1.16.0]": 7.4e-07,
        "trl-llama.lm-W1-K2-objective:orpo [1.16.0]": 0.0647,
        "trl-llama.lm-W1-K4-objective:orpo [1.16.0]": 0.0576,
        "trl-llama.lm-W1-K4x2-objective:orpo [0.25.1]": 0.0576,
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

_CPO = replace(
    _ORPO,
    id="truestep-2026-20-cpo",
    title="CPO: the likelihood term is a mean of micro-batch means",
    trigger=_trigger("cpo"),
    links=("https://huggingface.co/docs/trl/cpo_trainer", "https://github.com/huggingface/transformers/pull/34191"),
    cell="trl-llama.lm-W1-K4-objective:cpo",
    patch="truestep-2026-20-cpo",
    measured={
        "trl-llama.lm-W1-K4-objective:cpo [0.11.4]": 0.0381,
        "trl-llama.lm-W1-K1-objective:cpo [1.16.0]": 9.4e-07,
        "trl-llama.lm-W1-K4-objective:cpo [1.16.0]": 0.0381,
        "trl-llama.lm-W1-K4x2-objective:cpo [0.15.2]": 0.0381,
        "trl-llama.lm-W1-K8-objective:cpo [0.15.2]": 0.11,
        "trl-llama.lm-W1-K4x2-objective:cpo [0.25.1]": 0.0381,
    },
)
_DPO = replace(
    _ORPO,
    id="truestep-2026-20-dpo",
    title="DPO with an sft term: the likelihood term is a mean of micro-batch means",
    affected=(("0.20.0", None),),
    trigger=_trigger("dpo_sft"),
    links=(
        "https://huggingface.co/docs/trl/dpo_trainer#multi-loss-combinations",
        "https://github.com/huggingface/transformers/pull/34191",
    ),
    cell="trl-llama.lm-W1-K4-objective:dpo_sft",
    patch="truestep-2026-20-dpo",
    measured={
        "trl-llama.lm-W1-K1-objective:dpo_sft [0.25.1]": 7.1e-07,
        "trl-llama.lm-W1-K4x2-objective:dpo_sft [0.25.1]": 0.0234,
        "trl-llama.lm-W1-K4-objective:dpo_sft [1.16.0]": 0.0234,
    },
)

ADVISORY = (_ORPO, _CPO, _DPO)


def _orpo_tokens(batch: Mapping[str, Any]) -> Any:
    return batch["chosen_attention_mask"][:, 1:].sum()  # prompt and response


def _cpo_tokens(batch: Mapping[str, Any]) -> Any:
    return batch["chosen_labels"][:, 1:].ne(-100).sum()


def _chosen(batch: Mapping[str, Any]) -> Any:
    """The trained positions of the chosen sequences [B, T - 1], which are the first half of a micro-batch."""
    return batch["completion_mask"][:, 1:].chunk(2)[0].bool()


def _dpo_tokens(batch: Mapping[str, Any]) -> Any:
    return _chosen(batch).sum()


def _forward(tokens: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
    def concatenated_forward(original: Callable[..., Any], self: Any, model: Any, batch: Mapping[str, Any]) -> Any:
        found = original(self, model, batch)
        if self.is_encoder_decoder:
            return found
        return (*found[:4], found[4] * share(self, model, batch, tokens), *found[5:])

    return concatenated_forward


def _dpo_loss(original: Callable[..., Any], self: Any, model: Any, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
    weight = sum(w for kind, w in zip(self.loss_types, self.loss_weights, strict=True) if kind == "sft")
    if not weight or self.use_weighting or not model.training:
        return original(self, model, inputs, return_outputs)
    scored = []

    def forward(**given: Any) -> Any:
        scored.append(model(**given))
        return scored[-1]

    result = original(self, forward, inputs, return_outputs)
    chosen = _chosen(inputs)
    mean = -scored[0].log_probs[:, -chosen.shape[1] :].chunk(2)[0][chosen].mean()
    more = weight * (share(self, model, inputs, _dpo_tokens) - 1) * mean
    return (result[0] + more, *result[1:]) if return_outputs else result + more


PATCH = (
    Patch(
        advisory=_ORPO,
        module="trl.experimental.orpo.orpo_trainer",
        around={"ORPOTrainer.__init__": watch_windows(_orpo_tokens), "ORPOTrainer.concatenated_forward": _forward(_orpo_tokens)},
        relies_on=(
            "ORPOTrainer.__init__",
            "ORPOTrainer.concatenated_forward",
            "ORPOTrainer.get_batch_loss_metrics",
            "ORPOTrainer.compute_loss",
        ),
        fingerprints={
            "9dde30bc6a65e40a05ae7f640ba986921eb8693bf5d9329d5d6c519f46bd03e8": "0.29.1",
            "72cd55180141ba50fc22a5219e59ba7b003b3ea85d47771983fe07d1831b45de": "1.9.2",
            "df56791eab35b8e49f819f1d299bb1f9473fa9a6d31456d18ab155fa0a3c1ea1": "1.16.0",
        },
    ),
    Patch(
        advisory=_CPO,
        module="trl.experimental.cpo.cpo_trainer",
        around={"CPOTrainer.__init__": watch_windows(_cpo_tokens), "CPOTrainer.concatenated_forward": _forward(_cpo_tokens)},
        relies_on=(
            "CPOTrainer.__init__",
            "CPOTrainer.concatenated_forward",
            "CPOTrainer.get_batch_loss_metrics",
            "CPOTrainer.compute_loss",
        ),
        fingerprints={
            "c53c223a0f861ed64e2eaa9f59b3eb200403a3cbdfe003b4f2756bfd11ebbc1f": "0.29.1",
            "46172a235a1f61b0cca753dccdc115f9c3d365c81d37012fa844071d655f1f7f": "1.9.2",
            "2533ab537f17d565d57873f0290a585a777987b30ee4a799872dc95c9bd11f95": "1.16.0",
        },
    ),
    Patch(
        advisory=_DPO,
        module="trl.trainer.dpo_trainer",
        around={"DPOTrainer.__init__": watch_windows(_dpo_tokens), "DPOTrainer._compute_loss": _dpo_loss},
        relies_on=("DPOTrainer.__init__", "DPOTrainer._compute_loss", "DPOTrainer.compute_loss"),
        fingerprints={
            "25169d8ccf62d9393ecc495a07cb38cadbe1c30bb4251be7b4c199da5f7605b7": "1.16.0",
        },
    ),
)
