"""accelerate divides the loss of every micro-batch by the accumulation steps: a mean over micro-batches of means.

Right where every micro-batch has as many tokens; elsewhere the documentation asks for sums that are divided by the
items of the whole window (https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation, "on training
samples of variable size", in the documentation since 1.3.0).
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-mean-of-means",
    framework="accelerate",
    title="a loop that averages the loss of each micro-batch takes a mean of means",
    affected=(("1.0.0", None),),
    trigger=({"loop": ("mean",), "parts": {"min": 2}, "batch": {"not": ("equal",)}, "objective": ("token_mean",)},),
    signature=("re-weighted", "loss"),
    links=(
        "https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation#gradient-accumulation-on-training-samples-of-variable-size",
        "https://huggingface.co/blog/gradient_accumulation",
    ),
    cell="accelerate-mlp-W1-K4-loop:mean",
    measured={"accelerate-mlp-W1-K4-loop:mean [1.0.1]": 0.232, "accelerate-mlp-W1-K4-loop:mean [1.15.0]": 0.232},
    details="Ranks are averaged in the same way. Sum the losses of the tokens and multiply by num_processes * gradient_accumulation_steps / items.",
    by_design=True,
)
