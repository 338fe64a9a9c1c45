"""DistillationTrainer multiplies the backbone's output with the output embeddings, and skips what the model has between them.

As the fused head of GRPO and RLOO does since 1.16 (``fused_head.py``), here from the first release on and in student and
teacher alike: a prediction head (ModernBERT, BERT and RoBERTa as decoders) and a soft cap that is not named
``final_logit_softcapping`` (``logits_soft_cap`` of RecurrentGemma) are left out, without a word. No report is known to
us.
"""

from __future__ import annotations

from ..advisory import Advisory
from .distil_positions import DISTIL

ADVISORY = Advisory(
    id="truestep-2026-63",
    framework="trl",
    title="DistillationTrainer skips the prediction head of models that have one",
    affected=(("1.10.0", None),),
    trigger=(
        {
            "objective": DISTIL,
            "model": ("modernbert_decoder.lm", "bert_decoder.lm", "roberta_decoder.lm", "recurrent_gemma.lm"),
        },
    ),
    signature=("unexplained", "loss"),
    links=("https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/distillation_trainer.py",),
    cell="trl-modernbert_decoder.lm-W1-K1-objective:distil-batch:equal",
    measured={
        "trl-modernbert_decoder.lm-W1-K1-objective:distil-batch:equal [1.10.0]": 2.07,
        "trl-modernbert_decoder.lm-W1-K1-objective:distil-batch:equal [1.14.0]": 2.07,
        "trl-modernbert_decoder.lm-W1-K1-objective:distil-batch:equal [1.16.0]": 2.07,
        "trl-bert_decoder.lm-W1-K1-objective:distil-batch:equal [1.16.0]": 2.6,
        "trl-roberta_decoder.lm-W1-K1-objective:distil-batch:equal [1.16.0]": 3.28,
        "trl-recurrent_gemma.lm-W1-K1-objective:distil-batch:equal [1.16.0]": 0.0178,
        "trl-modernbert_decoder.lm-W1-K1-objective:gkd-batch:equal [1.16.0]": 5.4e-07,
    },
    details="1.15.0 has it by reading, but needs Triton and stops on a CPU. GKD, which calls the whole model, is right.",
)
