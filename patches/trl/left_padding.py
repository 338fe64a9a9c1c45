"""Prompts are padded on the left and scored without position ids.

GRPO and RLOO call the model with ``attention_mask`` alone, so a row's tokens stand as many positions too far to the right as it is
padded; ``generate`` counts positions from the mask. Rotary and relative positions do not see the shift. It changes every
log-probability of models that do: learned positions (GPT-2, GPT-Neo, GPT BigCode, BioGPT, XGLM, CTRL) and a norm of queries and
keys behind the rotation (HunYuan, StableLM). For these trainers no report is known to us; for online DPO there is one
(``trl_6800.py``).
"""

from __future__ import annotations

from dataclasses import replace

from ..advisory import Advisory
from ..patch import Patch
from ._positions import logps

#: heads whose logits depend on where a sequence starts, and that do not count from the attention mask themselves
ABSOLUTE = ("gpt2.lm", "bigcode.lm", "openai.lm", "ctrl.lm", "gpt_neo.lm", "biogpt.lm", "xglm.lm", "hunyuan.lm", "stablelm.lm")
ONLINE = (
    "bnpo", "cispo", "dapo", "dapo_cut", "dapo_fresh", "dapo_kl_corrected", "dapo_rewards", "dr_grpo", "dr_grpo_fresh",
    "gmpo", "gmpo_kl", "grpo", "grpo_cut", "grpo_delta", "grpo_fresh", "grpo_kl", "grpo_kl_fresh", "grpo_temperature", "gspo", "luspo",
    "luspo_kl", "rloo", "rloo_fresh", "rloo_kl", "rloo_rewards", "sapo", "vespo",
)  # fmt: skip

_GRPO = Advisory(
    id="truestep-2026-40",
    framework="trl",
    title="GRPO scores left-padded prompts at shifted positions",
    affected=(("0.15.0", None),),
    trigger=(
        {
            "objective": tuple(name for name in ONLINE if not name.startswith("rloo")), "model": ABSOLUTE,
            "batch": ("ragged", "prompted", "shuffled"),
        },
    ),
    signature=("unexplained", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/grpo_trainer.py",
        "https://github.com/huggingface/trl/issues/6800",
    ),
    cell="trl-gpt2.lm-W1-K4-objective:grpo_fresh",
    patch="truestep-2026-40",
    measured={
        "trl-gpt2.lm-W1-K4-objective:grpo_fresh [0.15.2]": 0.518,
        "trl-gpt2.lm-W1-K4-objective:dapo_fresh [0.25.1]": 1.02,
        "trl-gpt2.lm-W1-K2-objective:dapo_fresh [1.16.0]": 0.921,
        "trl-hunyuan.lm-W1-K2-objective:dapo_fresh [1.16.0]": 0.881,
        "trl-gpt2.lm-W1-K1-objective:dapo_fresh-batch:equal [1.16.0]": 8.6e-07,
    },
    details="One sample per micro-batch does not help: the whole generation batch is padded to one length. Prompts of one length do.",
)

_RLOO = replace(
    _GRPO,
    id="truestep-2026-40-rloo",
    title="RLOO scores left-padded prompts at shifted positions",
    affected=(("0.22.0", None),),
    trigger=({**_GRPO.trigger[0], "objective": tuple(name for name in ONLINE if name.startswith("rloo"))},),
    links=("https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/rloo_trainer.py", *_GRPO.links[1:]),
    cell="trl-gpt2.lm-W1-K4-objective:rloo_fresh",
    patch="truestep-2026-40-rloo",
    measured={
        "trl-gpt2.lm-W1-K4-objective:rloo_fresh [1.16.0]": 0.906,
        "trl-gpt2.lm-W1-K4-objective:rloo_kl [1.16.0]": 1.42,
    },
)

ADVISORY = (_GRPO, _RLOO)


def _patch(advisory: Advisory, name: str, fingerprints: dict[str, str]) -> Patch:
    method = f"{name}Trainer._get_per_token_logps_and_entropies"
    module = f"trl.trainer.{name.lower()}_trainer"
    return Patch(advisory=advisory, module=module, around={method: logps}, relies_on=(method,), fingerprints=fingerprints)


PATCH = (
    _patch(_GRPO, "GRPO", {
        "f6e2f6e91cd4bef705d0c7d0cb29875dda587250cc4b4245927b80d8fd398a98": "0.23.0",
        "8cf5c91c7b706a56398c1e5201b2c6d5d242385d21f6fd816449526d86e38bce": "0.25.1",
        "412938257b40c2ab4f0796af4a3d17f8c46bd0fb008cf4c837a5b0af5b6d2333": "0.29.1",
        "1bd84be1613850da3c525117182f52060f4f09ef3b1c15c6f38e07491aa85953": "1.16.0",
    }),
    _patch(_RLOO, "RLOO", {
        "af3db6c5056b8f34c2bd9459874a7bcf14193bcabb0f438be6676073bada3f4c": "0.23.0",
        "c58daec98915758a1f96acb523e2bf4db87b9e84e5d02d72e643364aff236957": "0.25.1",
        "1e8d0c53c0e4c6564e3239ae1c78591b170b0b5f00e3ff3d094db6a5940b1ed7": "0.29.1",
        "5d84af67f1057b4762e46d7410180fbe2e0152321d9d44ed401318d4466fc14a": "1.16.0",
    }),
)
