"""``disable_shuffling`` has no part in streaming: samples are drawn at random from a buffer all the same.

``split_dataset`` shuffles every streamed data set with ``buffer_size``, 16384 samples by default, whatever the option says. Not
reported upstream as far as is known; the source of the main branch of 2026-08-18 is the same.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="llamafactory-stream-order",
    framework="llamafactory",
    title="disable_shuffling is ignored with streaming: steps see other samples than those in their order",
    affected=(("0.9.2", None),),
    trigger=({"framework": ("llamafactory",), "data": ("drawn",), "steps": {"min": 2}},),
    signature=("unexplained", "re-weighted", "dropped", "stale", "scaled", "loss", "norm", "clipped"),
    links=(
        "https://llamafactory.readthedocs.io/en/latest/advanced/arguments.html",
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/data/data_utils.py",
    ),
    cell="llamafactory-llama.lm-W1-K1x3-data:drawn",
    measured={
        "llamafactory-llama.lm-W1-K1x3-data:drawn [0.9.2]": 1.6,
        "llamafactory-llama.lm-W1-K1x3-data:drawn [0.9.3]": 1.6,
        "llamafactory-llama.lm-W1-K1x3-data:drawn [0.9.4]": 1.6,
        "llamafactory-llama.lm-W1-K1x3-data:drawn [0.9.5]": 1.6,
        "llamafactory-llama.lm-W1-K1x3-data:iterable [0.9.2]": 1.1e-06,
        "llamafactory-llama.lm-W1-K1x3-data:iterable [0.9.3]": 1.1e-06,
        "llamafactory-llama.lm-W1-K1x3-data:iterable [0.9.4]": 9.5e-07,
        "llamafactory-llama.lm-W1-K1x3-data:iterable [0.9.5]": 9.5e-07,
    },
    details="Set buffer_size to 1, which keeps the order (cells with data:iterable).",
)
