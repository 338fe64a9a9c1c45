"""XGLM has one target more per row than there are tokens to predict: the last position must predict the pad token.

Its labels are moved to the left by one and the last column is filled with the id of the pad token, which the loss does not
ignore. Mended by https://github.com/huggingface/transformers/pull/35878.
"""

from __future__ import annotations

from ..advisory import Advisory
from ._trainer import FACTS

ADVISORY = Advisory(
    id="truestep-2026-25",
    framework="transformers",
    title="XGLM trains the last position of every row to predict the pad token",
    affected=(("4.45.2", "4.50.0"),),
    trigger=({**FACTS, "model": ("xglm.lm",)},),
    signature=("unexplained", "misaligned", "loss", "re-weighted", "scaled"),
    links=(
        "https://github.com/huggingface/transformers/pull/35878",
        "https://github.com/huggingface/transformers/blob/v4.49.0/src/transformers/models/xglm/modeling_xglm.py",
    ),
    cell="transformers-xglm.lm-W1-K1-batch:prompted",
    measured={
        "transformers-xglm.lm-W1-K1-batch:prompted [4.45.2]": 1.74,
        "transformers-xglm.lm-W1-K1-batch:prompted [4.49.0]": 2.33,
        "transformers-xglm.lm-W1-K1-batch:prompted [4.50.0]": 6.0e-06,
    },
)
