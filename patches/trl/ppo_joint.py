"""PPOTrainer up to 0.11, whose ``step`` LLaMA-Factory's PPO stage calls: four ways in which it is not the step it is documented to be.

- Gradient clipping: the parameters are a ``filter`` made once, empty after the first optimizer step
  (since https://github.com/huggingface/trl/pull/546): from the second step on nothing is clipped.
- Accumulation: accelerate ends it where a data loader ends (https://github.com/huggingface/accelerate/issues/1847). While the last
  batch of an epoch trains, every mini-batch is an optimizer step of its own, its gradient divided by the accumulation steps.
- ``whiten_rewards``: whitening moves the zeros outside of the responses too, and the advantages sum them up from the end of
  the padding: they depend on how much longer another sample of the rollout is. PPOv2Trainer of the same release masks them again.
- The loss of a mini-batch is the mean over its own tokens, and the mean of those means is the step's.

Not reported upstream as far as is known; PPOTrainer of 0.12 is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

_STAGE = {"framework": ("llamafactory",), "objective": ("ppo_joint", "ppo_joint_buffer", "ppo_joint_whitened")}
_SOURCE = "https://github.com/huggingface/trl/blob/v0.9.6/trl/trainer/ppo_trainer.py"
_CELL = "llamafactory-llama.lm+valued-W1"

_CLIP = Advisory(
    id="truestep-2026-85",
    framework="trl",
    title="PPOTrainer: max_grad_norm clips the first optimizer step of a run and no other",
    affected=(("0.9.6", "0.12.0"),),
    trigger=({**_STAGE, "clipping": ("unset", "tight"), "steps": {"min": 2}},),
    signature=("clipped", "scaled"),
    links=(_SOURCE, "https://github.com/huggingface/trl/pull/546"),
    cell=f"{_CELL}-K1x2e2-objective:ppo_joint-clipping:tight",
    patch="truestep-2026-85",
    measured={
        f"{_CELL}-K1x2e2-objective:ppo_joint-clipping:unset [0.9.6]": 0.59,
        f"{_CELL}-K1x2e2-objective:ppo_joint-clipping:tight [0.9.6]": 24,
    },
    details="With optimizer parameters of any kind: the list of what is clipped is empty, and clipping nothing is no error.",
)

_END = replace(
    _CLIP,
    id="truestep-2026-86",
    title="PPOTrainer: while the last batch of an epoch trains, every mini-batch is an optimizer step",
    trigger=({**_STAGE, "K": {"min": 2}, "follows": ("nothing",)},),
    signature=("dropped", "re-weighted", "loss"),
    links=(_SOURCE, "https://github.com/huggingface/accelerate/issues/1847"),
    cell=f"{_CELL}-K4-objective:ppo_joint-batch:equal-clipping:loose-follows:nothing",
    patch="truestep-2026-86",
    measured={
        f"{_CELL}-K4-objective:ppo_joint-batch:equal-clipping:loose-follows:nothing [0.9.6]": 1.1,
        f"{_CELL}-K1-objective:ppo_joint-batch:equal-clipping:loose-follows:nothing [0.9.6]": 8.5e-07,
        f"{_CELL}-K4-objective:ppo_joint-batch:equal-clipping:loose [0.9.6]": 8.4e-07,
    },
    details="Where a data set is one batch that is every step. The gradient of a mini-batch is still divided by the accumulation steps.",
)

_WHITE = replace(
    _CLIP,
    id="truestep-2026-87",
    title="PPOTrainer: with whiten_rewards what is padding has a reward, which flows into the advantages of the tokens before it",
    trigger=({**_STAGE, "objective": ("ppo_joint_whitened",), "batch": {"not": ("equal",)}},),
    signature=("unexplained", "re-weighted", "loss"),
    links=(_SOURCE, "https://github.com/huggingface/trl/blob/v0.9.6/trl/trainer/ppov2_trainer.py#L375-L378"),
    cell=f"{_CELL}-K1-objective:ppo_joint_whitened-clipping:loose",
    patch="truestep-2026-87",
    measured={
        f"{_CELL}-K1-objective:ppo_joint_whitened-clipping:loose [0.9.6]": 0.044,
        f"{_CELL}-K1-objective:ppo_joint_whitened-batch:equal-clipping:loose [0.9.6]": 8.1e-07,
    },
    details="By mean * (1 - 1 / deviation) of the rewards for every position of padding, discounted.",
)

_MEANS = replace(
    _CLIP,
    id="truestep-2026-88",
    title="PPOTrainer: with gradient_accumulation_steps the step is a mean of means over mini-batches",
    trigger=({**_STAGE, "K": {"min": 2}, "batch": {"not": ("equal",)}},),
    signature=("re-weighted", "scaled", "loss"),
    links=(_SOURCE, "https://huggingface.co/docs/trl/v0.9.6/ppo_trainer"),
    cell=f"{_CELL}-K4-objective:ppo_joint-clipping:loose",
    patch=None,
    measured={
        f"{_CELL}-K1-objective:ppo_joint-clipping:loose [0.9.6]": 1.1e-06,
        f"{_CELL}-K4-objective:ppo_joint-clipping:loose [0.9.6]": 0.13,
        f"{_CELL}-K4-objective:ppo_joint-batch:equal-clipping:loose [0.9.6]": 8.4e-07,
    },
    details="No documentation says so. A mini-batch with few response tokens counts as much as one with many. There is no patch: keep "
    "gradient_accumulation_steps at 1.",
)

ADVISORY = (_CLIP, _END, _WHITE, _MEANS)


def _init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    self.model_params = [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def _step(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    options = self.accelerator.gradient_state.plugin_kwargs
    before = dict(options)
    options["sync_with_dataloader"] = False
    try:
        return original(self, *args, **kwargs)
    finally:
        options.clear()
        options.update(before)


def _whiten(original: Callable[..., Any], values: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
    return original(values, mask, *args, **kwargs) * mask


_TRAINER = "trl.trainer.ppo_trainer"
PATCH = (
    Patch(
        advisory=_CLIP,
        module=_TRAINER,
        around={"PPOTrainer.__init__": _init},
        relies_on=("PPOTrainer.__init__", "PPOTrainer.train_minibatch"),
        fingerprints={
            "acecc4dc1bfc92ea6f6ebd60fec721d7fda4c5f519ee17acfbec920542855d40": "0.9.6",
            "7d63df5fe14ff8ec94ce3722ebba6bb916f3988735aa6e0890f9cf82c070f4a6": "0.11.4",
        },
    ),
    Patch(
        advisory=_END,
        module=_TRAINER,
        around={"PPOTrainer.step": _step},
        relies_on=("PPOTrainer.step", "PPOTrainer.train_minibatch"),
        fingerprints={"32a7247fa4231287419dc4e2b1183e038fc7698b486844c7e8f6ad65f7d7752b": "0.9.6 .. 0.11.4"},
    ),
    Patch(
        advisory=_WHITE,
        module="trl.core",
        around={"masked_whiten": _whiten},
        relies_on=("masked_whiten", "trl.trainer.ppo_trainer:PPOTrainer.compute_advantages"),
        fingerprints={"0ce782227c63e3760a7152ed486f6f9736311be53d0f05ab2d99752619d1e0c2": "0.9.6 .. 0.11.4"},
    ),
)
