"""``neat_packing`` keeps the samples of a row apart by a mask of shape [B, 1, T, T]. What does not go through that mask is not kept.

- A sliding window: transformers takes a mask of four dimensions as it is, and no layer applies its window any more, so that a sample
  longer than the window is seen whole. (With FlashAttention 2 there is no such mask, and the window holds.)
- Recurrent layers and convolutions run on from one sample into the next.
- Positions: none were given before https://github.com/hiyouga/LLaMA-Factory/pull/7754; RoBERTa's begin at 2 and are given from 0.

Found here with eager and sdpa attention; not reported upstream as far as is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

_NEAT = {"framework": ("llamafactory",), "packing": ("neat",)}

_WINDOW = Advisory(
    id="llamafactory-neat-window",
    framework="llamafactory",
    title="neat_packing on eager or sdpa attention: the sliding window of the model is not applied",
    affected=(("0.9.5", None),),
    trigger=(
        {
            **_NEAT,
            "model": (
                "mistral.lm",
                "ministral.lm",
                "gemma2.lm",
                "gemma3.lm",
                "olmo3.lm",
                "cohere2.lm",
                "exaone4.lm",
                "vaultgemma.lm",
            ),
        },
    ),
    signature=("unexplained", "misaligned", "re-weighted", "scaled", "loss", "norm", "clipped"),
    links=(
        "https://llamafactory.readthedocs.io/en/latest/advanced/arguments.html",
        "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.5/src/llamafactory/data/collator.py",
    ),
    cell="llamafactory-mistral.lm-W1-K4-packing:neat",
    patch="llamafactory-neat-window",
    measured={
        "llamafactory-mistral.lm-W1-K4 [0.9.5]": 4.4e-07,
        "llamafactory-mistral.lm-W1-K4-packing:neat [0.9.5]": 0.66,
        "llamafactory-gemma2.lm-W1-K4-packing:neat [0.9.5]": 1.1,
        "llamafactory-gemma3.lm-W1-K4-packing:neat [0.9.5]": 0.74,
        "llamafactory-olmo3.lm-W1-K4-packing:neat [0.9.5]": 1,
        "llamafactory-cohere2.lm-W1-K4-packing:neat [0.9.5]": 0.31,
        "llamafactory-exaone4.lm-W1-K4-packing:neat [0.9.5]": 1.2,
        "llamafactory-vaultgemma.lm-W1-K4-packing:neat [0.9.5]": 0.69,
    },
    details=(
        "A window of 4 and samples of up to 7 tokens; with a window of 64 the same cells are right. Only samples longer than the window "
        "are concerned. Use flash_attn: fa2, or do without packing."
    ),
)

_OLDER = replace(
    _WINDOW,
    patch=None,
    id="llamafactory-neat-window-mistral",
    title="neat_packing on eager or sdpa attention: Mistral's sliding window is not applied",
    affected=(("0.9.2", "0.9.4"),),
    trigger=({**_NEAT, "model": ("mistral.lm",)},),
    measured={
        "llamafactory-mistral.lm-W1-K4-packing:neat [0.9.2]": 0.66,
        "llamafactory-mistral.lm-W1-K4-packing:neat [0.9.3]": 0.66,
    },
    details="Up to transformers 4.52 layers of Gemma 2, Gemma 3 and Cohere 2 applied their window to such a mask themselves.",
)

_STATE = replace(
    _WINDOW,
    patch=None,
    id="llamafactory-neat-state",
    title="neat_packing of models with recurrent layers or convolutions: their state runs on from sample to sample",
    affected=(("0.9.5", None),),
    trigger=({**_NEAT, "model": ("lfm2.lm", "lfm2_moe.lm", "mamba2.lm", "recurrent_gemma.lm")},),
    cell="llamafactory-lfm2.lm-W1-K4-packing:neat",
    measured={
        "llamafactory-lfm2.lm-W1-K4-packing:neat [0.9.5]": 1.1,
        "llamafactory-mamba2.lm-W1-K4-packing:neat [0.9.5]": 3.3,
        "llamafactory-recurrent_gemma.lm-W1-K4-packing:neat [0.9.5]": 0.89,
    },
    details="Mamba and Falcon-Mamba fail loudly. Do without packing.",
)

_POSITIONS = replace(
    _WINDOW,
    patch=None,
    id="llamafactory-7754",
    title="neat_packing of models with learned positions: the positions go on from sample to sample",
    affected=(("0.9.2", "0.9.3"),),
    trigger=({**_NEAT, "model": ("gpt_neo.lm",)},),
    links=("https://github.com/hiyouga/LLaMA-Factory/pull/7754",),
    cell="llamafactory-gpt_neo.lm-W1-K4-packing:neat",
    measured={
        "llamafactory-gpt_neo.lm-W1-K4-packing:neat [0.9.2]": 0.87,
        "llamafactory-gpt_neo.lm-W1-K4-packing:neat [0.9.3]": 6e-07,
    },
    details="Rotary positions are relative, so that models like Llama are right all the same.",
)

_ROBERTA = replace(
    _WINDOW,
    patch=None,
    id="llamafactory-neat-roberta",
    title="neat_packing of RoBERTa as a decoder: its positions begin at 2 and are given from 0",
    affected=(("0.9.3", None),),
    trigger=({**_NEAT, "model": ("roberta_decoder.lm",)},),
    cell="llamafactory-roberta_decoder.lm-W1-K4-packing:neat",
    measured={"llamafactory-roberta_decoder.lm-W1-K4-packing:neat [0.9.5]": 1.4},
    details="Do without packing.",
)

ADVISORY = (_WINDOW, _OLDER, _STATE, _POSITIONS, _ROBERTA)


def _call(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    config = self.model.config.get_text_config() if self.model is not None else None
    window, mask = getattr(config, "sliding_window", None), found.get("attention_mask")
    if not self.block_diag_attn or window is None or mask is None or mask.dim() != 4:
        return found
    import torch

    position = torch.arange(mask.shape[-1])
    far = position[:, None] - position >= window
    banded = mask.masked_fill(far, torch.finfo(mask.dtype).min)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        found["attention_mask"] = banded
    elif "sliding_attention" in kinds:  # models with layers of both kinds take a mask for each
        found["attention_mask"] = {"full_attention": mask, "sliding_attention": banded}
    return found


PATCH = Patch(
    advisory=_WINDOW,
    module="llamafactory.data.collator",
    around={"SFTDataCollatorWith4DAttentionMask.__call__": _call},
    relies_on=("SFTDataCollatorWith4DAttentionMask.__call__", "prepare_4d_attention_mask"),
    fingerprints={"2c0d9b3e1981b644cf73a3e1b31897ae0fb104f0db2dd75ada086ebf2de9ba59": "0.9.5"},
)
