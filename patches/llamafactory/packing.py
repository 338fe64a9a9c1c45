"""Samples that are packed without ``neat_packing`` see the samples before them in their row: documented."""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="llamafactory-packing",
    framework="llamafactory",
    title="packing without neat_packing: samples of a row see each other, and their positions go on",
    affected=(("0.9.2", None),),
    trigger=({"framework": ("llamafactory",), "packing": ("packing",)},),
    signature=("unexplained", "misaligned", "re-weighted", "loss", "norm", "clipped"),
    links=("https://llamafactory.readthedocs.io/en/latest/advanced/arguments.html",),
    cell="llamafactory-llama.lm-W1-K4-packing:packing",
    measured={
        "llamafactory-llama.lm-W1-K4-packing:packing [0.9.2]": 0.0,
    },
    details='neat_packing is documented as "sequence packing without cross-attention": this is what plain packing has. Use neat_packing.',
    by_design=True,
)
