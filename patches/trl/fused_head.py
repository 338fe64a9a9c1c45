"""The fused head applies the output embeddings to the backbone's output, and skips what the model has between them.

``add_fused_lm_head`` multiplies the last hidden states with the weight of ``get_output_embeddings``; of what a model's
own forward does on the way it knows a scale and ``final_logit_softcapping``. A prediction head (ModernBERT, BERT and RoBERTa as
decoders) and a soft cap under another name (``logits_soft_cap`` of RecurrentGemma) are left out, without a word.
No report is known to us.
"""

from __future__ import annotations

from ..advisory import Advisory
from .left_padding import ONLINE

ADVISORY = Advisory(
    id="truestep-2026-42",
    framework="trl",
    title="GRPO and RLOO skip the prediction head of models that have one",
    affected=(("1.16.0", None),),
    trigger=(
        {
            "objective": ONLINE,
            "model": ("modernbert_decoder.lm", "bert_decoder.lm", "roberta_decoder.lm", "recurrent_gemma.lm"),
        },
    ),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/utils.py",),
    cell="trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal",
    measured={
        "trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.14.0]": 6.3e-07,
        "trl-modernbert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 1.47,
        "trl-modernbert_decoder.lm-W1-K1-objective:rloo_fresh-batch:equal [1.16.0]": 1.47,
        "trl-bert_decoder.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 2.44,
        "trl-recurrent_gemma.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 0.0112,
    },
    details="1.15.0 has it by reading, but needs Triton and stops on a CPU; 1.16.0 has a path in plain PyTorch.",
)
