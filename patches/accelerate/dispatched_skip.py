"""skip_first_batches on a dispatching loader skips batches of the data set, not of a process: W times too few.

A loader that dispatches (``dispatch_batches``) reads one batch of the data set for every process and deals them out;
its length counts what a process gets. skip_first_batches takes that many off the sampler of the data set instead. With
``split_batches`` the two are the same. Not reported upstream as far as we know.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-dispatched-skip",
    framework="accelerate",
    title="skip_first_batches on a dispatching loader skips a W-th of what was asked: samples are trained on again",
    affected=(("1.0.0", None),),
    trigger=({"dispatch_batches": ("true",), "split_batches": ("false",), "world_size": {"min": 2}, "checkpoint": ("reload",)},),
    signature=("unexplained", "loss"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/checkpoint#restoring-the-state-of-the-dataloader",),
    cell="accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload",
    measured={
        "accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload [1.0.1]": 1.11,
        "accelerate-mlp-W2-K2x3-batch:padded-dispatch_batches:true-checkpoint:reload [1.15.0]": 1.11,
        "accelerate-mlp-W2-K2x3-batch:padded-split_batches:true-dispatch_batches:true-checkpoint:reload [1.15.0]": 1.92e-07,
    },
    details="Skip num_processes times as many batches, or split_batches=True.",
)
