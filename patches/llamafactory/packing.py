"""Samples that are packed without ``neat_packing`` see the samples before them in their row: documented."""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="llamafactory-packing",
    framework="llamafactory",
    title="packing without neat_packing: samples of a row see each other",
    affected=(("0.9.2", None),),
    trigger=({"framework": ("llamafactory",), "packing": ("packing",)},),
    signature=("unexplained", "misaligned", "re-weighted", "loss", "norm", "clipped"),
    links=("https://llamafactory.readthedocs.io/en/latest/advanced/arguments.html",),
    cell="llamafactory-llama.lm-W1-K4-packing:packing",
    measured={
        "llamafactory-llama.lm-W1-K4-packing:packing [0.9.2]": 1.7,
        "llamafactory-llama.lm-W1-K4-packing:packing [0.9.3]": 1.3,
        "llamafactory-llama.lm-W1-K4-packing:packing [0.9.4]": 1.3,
        "llamafactory-llama.lm-W1-K4-packing:packing [0.9.5]": 1.3,
    },
    details='neat_packing is documented as "sequence packing without cross-attention": this is what plain packing has. Use neat_packing.',
    by_design=True,
)
