"""The fused head applies the output embeddings to the backbone's output, and skips what the model has between them.

``add_fused_lm_head`` multiplies the last hidden states with the weight of ``get_output_embeddings``; of what a model's
own forward does on the way it knows a scale and ``final_logit_softcapping``. A prediction head (ModernBERT, BERT and RoBERTa as
decoders) and a soft cap under another name (``logits_soft_cap`` of RecurrentGemma) are left out, without a word.
No report is known to us.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from .left_padding import ONLINE

#: what is computed from the fused head's log-probabilities: all but label smoothing, ORPO and CPO
_FUSED = (
    *ONLINE, "token_mean", "dft", "kto", "kto_apo", "dpo_sigmoid", "dpo_sigmoid_norm", "dpo_hinge", "dpo_ipo", "dpo_exo_pair",
    "dpo_nca_pair", "dpo_robust", "dpo_bco_pair", "dpo_sppo_hard", "dpo_aot", "dpo_aot_unpaired", "dpo_apo_zero", "dpo_apo_down",
    "dpo_discopop", "dpo_sft",
)  # fmt: skip

ADVISORY = Advisory(
    id="truestep-2026-42",
    framework="trl",
    title="SFT, DPO, KTO, GRPO and RLOO skip the prediction head of models that have one",
    affected=(("1.16.0", None),),
    trigger=(
        {
            "framework": ("trl",), "objective": _FUSED,
            "model": ("modernbert_decoder.lm", "bert_decoder.lm", "roberta_decoder.lm", "recurrent_gemma.lm"),
        },
    ),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/utils.py",),
    cell="trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal",
    patch="truestep-2026-42",
    measured={
        "trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.14.0]": 6.3e-07,
        "trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 1.47,
        "trl-modernbert_decoder.lm-W1-K1-objective:rloo_fresh-batch:equal [1.16.0]": 1.47,
        "trl-bert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 2.44,
        "trl-recurrent_gemma.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 0.0112,
        "trl-modernbert_decoder.lm-W1-K1 [1.16.0]": 1.95,
        "trl-modernbert_decoder.lm-W1-K1-objective:dft [1.16.0]": 1.79,
        "trl-modernbert_decoder.lm-W1-K1-objective:dpo_sigmoid [1.16.0]": 1.35,
        "trl-modernbert_decoder.lm-W1-K1-objective:kto_apo [1.16.0]": 1.51,
        "trl-recurrent_gemma.lm-W1-K1 [1.16.0]": 0.0249,
    },
    details="1.15.0 has it by reading, but needs Triton and stops on a CPU; 1.16.0 has a path in plain PyTorch.",
)


def _add_fused_lm_head(original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> None:
    """A head that scores as the model does is kept; from any other the model's own logits take over."""
    own = model.forward
    original(model, *args, **kwargs)
    fused, agrees = model.forward, None
    given = inspect.signature(original).bind(model, *args, **kwargs)
    given.apply_defaults()
    temperature, wanted = given.arguments["temperature"], given.arguments["outputs"]

    @functools.wraps(type(model).forward)  # generate looks at its arguments
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        nonlocal agrees
        if not fused_lm_head:
            return fused(*args, **kwargs)
        if agrees is None:
            agrees = _agree(self, fused, own, temperature, args, kwargs)
        if agrees:
            return fused(*args, fused_lm_head=True, **kwargs)
        return _scored(self, own, temperature, wanted, args, kwargs)

    model.forward = types.MethodType(forward, model)


def _agree(
    model: Any, fused: Callable[..., Any], own: Callable[..., Any], temperature: float, args: Any, kwargs: Any
) -> bool | None:
    """Whether both ways find the same log-probabilities, to rounding: asked of the first batch that has labels, None before it."""
    import torch

    training, devices = model.training, [torch.cuda.current_device()] if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            one = fused(*args, fused_lm_head=True, **kwargs).log_probs.float()
            other = _scored(model, own, temperature, ("log_probs",), args, kwargs).log_probs.float()
    finally:
        model.train(training)
    exact = next(model.parameters()).dtype == torch.float32 and not torch.is_autocast_enabled(one.device.type)
    labelled = (one != 0) | (other != 0)
    if not bool(labelled.any()):
        return None
    off, size = (one - other)[labelled], other[labelled].abs()
    # too strict costs memory alone: the logits of the model are right in any case. Rounding has no direction, a cap that is
    # skipped has one: in half precision the mean must agree more closely than each
    near = bool(off.abs().max() <= (1e-4 if exact else 2e-2) * (1 + size.max()))
    return near and (exact or bool(off.mean().abs() <= 2e-3 * (1 + size.mean())))


def _scored(
    model: Any, own: Callable[..., Any], temperature: float, wanted: tuple[str, ...], args: Any, kwargs: Any
) -> Any:
    """What the fused head returns, from the logits [B, T, V] of the model's own forward."""
    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    inputs = {**kwargs, "use_cache": False}
    labels, shifted, items = (inputs.pop(name, None) for name in ("labels", "shift_labels", "num_items_in_batch"))
    outputs = own(*args, **inputs)
    logits, labels = (outputs.logits[:, :-1], labels[:, 1:]) if shifted is None else (outputs.logits, shifted)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    labels = labels.to(logits.device)
    mask = labels != -100
    every = logits.log_softmax(-1)
    found = {
        "log_probs": lambda: every.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1),
        "entropy": lambda: -(every.exp() * every).sum(-1),
        "log_sum_sq_probs": lambda: (2 * every.detach()).logsumexp(-1),
        "mean_logits": lambda: logits.detach().mean(-1),
        "is_top1": lambda: logits.argmax(-1) == labels,
    }
    fields = {name: found[name]().masked_fill(~mask, 0) for name in dict.fromkeys(("log_probs", *wanted))}
    loss = -fields["log_probs"].sum() / (mask.sum().clamp(min=1) if items is None else items)
    aux = getattr(outputs, "aux_loss", None)
    if aux is not None:
        loss = loss + getattr(model.config.get_text_config(), "router_aux_loss_coef", 0.0) * aux
    return FusedCausalLMOutput(loss=loss, label_mask=mask, aux_loss=aux, **fields)


PATCH = Patch(
    advisory=ADVISORY,
    module="trl.trainer.utils",
    around={"add_fused_lm_head": _add_fused_lm_head},
    relies_on=("add_fused_lm_head", "FusedCausalLMOutput"),
    fingerprints={
        "7b1ead4bcf7b72ed258f6f792bb4efc19689f385cd761bb4b1938e13a669f90a": "1.16.0",
    },
)
