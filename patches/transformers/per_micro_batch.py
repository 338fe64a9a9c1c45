"""What is not given the number of items is a mean over the micro-batch, divided by the accumulation steps: a mean of means.

That the loss of a model is limited to this unless it takes the number of items is explained in
https://huggingface.co/blog/gradient_accumulation, and documented for a ``compute_loss`` of one's own.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import DOCS, UNLIKE

ADVISORY = Advisory(
    id="transformers-mean-of-means",
    framework="transformers",
    title="Heads (or a compute_loss) that are not given the number of items are averaged by micro-batch and rank",
    affected=(("4.46.0", None),),
    trigger=(
        *({**one, "accepts_items": (False,)} for one in UNLIKE),
        *({**one, "compute_loss": ("flagged",)} for one in UNLIKE),
    ),
    signature=("re-weighted", "loss", "norm", "unexplained"),
    links=(
        "https://huggingface.co/blog/gradient_accumulation",
        f"{DOCS}/v5.23.0/en/main_classes/trainer#transformers.Trainer.compute_loss",
    ),
    cell="transformers-llama.lm-W1-K4-compute_loss:flagged",
    measured={
        "transformers-llama.lm-W1-K4-compute_loss:flagged [4.57.6]": 0.11,
        "transformers-llama.lm-W1-K4-compute_loss:flagged [5.23.0]": 0.11,
        "transformers-bert.mlm-W1-K4 [4.57.6]": 0.066,
    },
    details="Use compute_loss_func and divide by num_items_in_batch.",
    by_design=True,
)
