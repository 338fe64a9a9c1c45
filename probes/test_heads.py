"""The heads of transformers under its Trainer: one of every way in which they compute a loss.

The other heads of ``fixtures/heads.py`` run by their id: ``truestep run transformers-electra.choice-W1-K4``.
"""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

CAUSAL = ("mistral.lm", "gemma2.lm", "phi.lm", "bloom.lm", "falcon.lm", "mamba.lm", "xglm.lm", "bert_decoder.lm")
SHARED = ("mistral.class", "qwen2.value", "gemma.tokens", "modernbert.mlm", "neox.span")  # heads of one class for many models
OWN = ("roberta.mlm", "distilbert.tokens", "electra.class", "deberta_v2.labels", "bert.choice", "gpt2.class",
       "bart.class")  # fmt: skip
PAIRS = ("bart.seq2seq", "mbart.seq2seq", "m2m100.seq2seq")
EXPERTS = ("granitemoe.lm", "jetmoe.lm")


@probe(
    [
        *grid("transformers", model=(*CAUSAL, *SHARED, *OWN, *PAIRS), windows=(1, 4)),
        *grid("transformers", model=("mistral.lm", "qwen2.value", "roberta.mlm", "m2m100.seq2seq"), world_size=2),
        *grid("transformers", model=EXPERTS, objective=("token_mean", "router"), windows=(1, 4)),
    ]
)
def test_every_head_makes_the_step_of_the_whole_batch(step: Step) -> None:
    """Whatever a model computes its loss for, the step must be that of the whole batch."""
    step.must_be_right()
