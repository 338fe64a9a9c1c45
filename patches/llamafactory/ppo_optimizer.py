"""The PPO stage's optimizer: weight decay where none was asked for, and a zero that does not mean "off".

``CustomPPOTrainer.create_optimizer`` makes a group of parameters that do not decay (norms and biases) and does not say so to the
optimizer, whose own default decays them: 0.01 in torch's AdamW. The optimizers of ``train/trainer_utils.py`` say ``weight_decay=0.0``.
``max_grad_norm: 0`` switches transformers' clipping off; here it goes to TRL as it is, and clips the first gradient to nothing.
Not reported upstream as far as is known; the source of 0.9.5 is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

_STAGE = {"framework": ("llamafactory",), "objective": ("ppo_joint", "ppo_joint_buffer", "ppo_joint_whitened")}
_SOURCE = "https://github.com/hiyouga/LLaMA-Factory/blob/v0.9.3/src/llamafactory/train/ppo/trainer.py"
_CELL = "llamafactory-llama.lm+valued-W1-K1-objective:ppo_joint"

_DECAY = Advisory(
    id="truestep-2026-89",
    framework="llamafactory",
    title="PPO: norms and biases decay by the optimizer's default, whatever weight_decay says",
    affected=(("0.9.3", None),),
    trigger=(_STAGE,),
    signature=("update",),
    links=(_SOURCE, "https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html"),
    cell=f"{_CELL}-clipping:loose",
    patch="truestep-2026-89",
    measured={f"{_CELL}-clipping:loose [0.9.3]": 1e-05, f"{_CELL}-clipping:loose [0.9.4]": 1e-05},
    details="By 0.01 times the learning rate in every step. 0.9.4 and 0.9.5 refuse any TRL above 0.9.6 in this stage, and 0.9.5 cannot be "
    "imported with that one.",
)

_ZERO = replace(
    _DECAY,
    id="truestep-2026-90",
    title="PPO: max_grad_norm: 0, which switches clipping off everywhere else, makes the first gradient zero",
    trigger=({**_STAGE, "clipping": ("off",)},),
    signature=("dropped", "scaled", "clipped", "update"),
    links=(_SOURCE, "https://github.com/huggingface/transformers/blob/v4.52.4/src/transformers/trainer.py"),
    cell=_CELL,
    patch="truestep-2026-90",
    measured={f"{_CELL} [0.9.3]": 1.0, f"{_CELL} [0.9.4]": 1.0},
    details="In TRL's PPOConfig it is None that switches clipping off. Use a norm that is never reached.",
)

ADVISORY = (_DECAY, _ZERO)


def _create(original: Callable[..., Any], self: Any, model: Any, training_args: Any, *args: Any, **kwargs: Any) -> Any:
    optimizer = original(self, model, training_args, *args, **kwargs)
    decayed = set(self.get_decay_parameter_names(model))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        if not any(names.get(parameter) in decayed for parameter in group["params"]):
            group["weight_decay"] = 0.0
    return optimizer


def _init(original: Callable[..., Any], self: Any, model_args: Any, training_args: Any, *args: Any, **kwargs: Any) -> None:
    asked = training_args.max_grad_norm
    training_args.max_grad_norm = asked or None
    try:
        original(self, model_args, training_args, *args, **kwargs)
    finally:
        training_args.max_grad_norm = asked


_MODULE = "llamafactory.train.ppo.trainer"
PATCH = (
    Patch(
        advisory=_DECAY,
        module=_MODULE,
        around={"CustomPPOTrainer.create_optimizer": _create},
        relies_on=("CustomPPOTrainer.create_optimizer",),
        fingerprints={"a0ea6470b3d300fb432dc970746d18c4e3695a3a41fe89c4e3d572790706d64f": "0.9.3 .. 0.9.5"},
    ),
    Patch(
        advisory=_ZERO,
        module=_MODULE,
        around={"CustomPPOTrainer.__init__": _init},
        relies_on=("CustomPPOTrainer.__init__",),
        fingerprints={
            "01ea29b640d951a4f32ac47da9332ff3d5c535cbf2b5fba816c731e0e57a329a": "0.9.3",
            "cc509ed5b971b88688d66e3d7061c0e0c63555cb957dac6adae3b97442e40d68": "0.9.4 .. 0.9.5",
        },
    ),
)
