"""A prepared scheduler is stepped once per process with every optimizer step.

https://huggingface.co/docs/accelerate/concept_guides/performance#learning-rates says so, and why: a loader that is
prepared reads that many times more samples in a step. Who wrote a schedule over optimizer steps gets to its end early.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-scheduler-per-process",
    framework="accelerate",
    title="a prepared scheduler advances by the number of processes with every optimizer step",
    affected=(("1.0.0", None),),
    trigger=(
        {
            "schedule": ("linear",), "scheduler": ("prepared",), "step_scheduler_with_optimizer": ("true",),
            "split_batches": ("false",), "world_size": {"min": 2}, "steps": {"min": 2},
        },
    ),
    signature=("lr", "update"),
    links=("https://huggingface.co/docs/accelerate/concept_guides/performance#learning-rates",),
    cell="accelerate-mlp-W2-K2x3-schedule:linear",
    measured={
        "accelerate-mlp-W2-K2x3-schedule:linear [1.0.1]": 0.0667,
        "accelerate-mlp-W2-K2x3-schedule:linear [1.15.0]": 0.0667,
        "accelerate-mlp-W2-K2x3-schedule:linear-scheduler:own [1.15.0]": 2.17e-07,
    },
    details="Leave the scheduler unprepared and step it when sync_gradients is true, or write the schedule for num_processes times the steps.",
    by_design=True,
)
