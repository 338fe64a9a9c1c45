"""With optimizer offload accelerate exchanges any optimizer for DeepSpeedCPUAdam, SGD too, without a word.

prepare() does so unless the DeepSpeed configuration holds ``zero_force_ds_cpu_optimizer: false``, which DeepSpeedPlugin's
own arguments cannot say. Adagrad and Lion have counterparts since https://github.com/huggingface/accelerate/pull/3255
(1.2.0); all else becomes Adam, with its default betas. https://huggingface.co/docs/accelerate/usage_guides/deepspeed does
not say it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="accelerate-forced-cpu-adam",
    framework="accelerate",
    title="optimizer offload through DeepSpeedPlugin trains with Adam where SGD was given",
    affected=(("1.4.0", None),),
    trigger=({"engine": ("deepspeed",), "config": ("plugin",), "offload_optimizer": ("cpu",), "optimizer": ("sgd",)},),
    signature=("dropped", "unexplained", "update", "moments"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/deepspeed", "https://github.com/huggingface/accelerate/pull/3255"),
    cell="accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-clipping:loose",
    patch="accelerate-forced-cpu-adam",
    measured={
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-clipping:loose [1.15.0]": 1.0,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-optimizer:adam-clipping:loose [1.15.0]": 1.61e-07,
    },
    details="The state holds exp_avg and no momentum_buffer. Give the configuration as hf_ds_config with zero_force_ds_cpu_optimizer: false.",
)


def _prepare_deepspeed(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    from torch.optim import Adagrad, Adam, AdamW, Optimizer

    optimizer = next((one for one in args if isinstance(one, Optimizer)), None)
    # what has a counterpart is left to it; Lion comes from other packages
    counterpart = isinstance(optimizer, (Adam, AdamW, Adagrad)) or any(
        name in type(optimizer).__name__ for name in ("Adam", "Adagrad", "Lion")
    )
    if optimizer is not None and not counterpart:
        self.deepspeed_plugin.deepspeed_config.setdefault("zero_force_ds_cpu_optimizer", False)
    return original(self, *args, **kwargs)


PATCH = Patch(
    advisory=ADVISORY,
    module="accelerate.accelerator",
    around={"Accelerator._prepare_deepspeed": _prepare_deepspeed},
    relies_on=("Accelerator._prepare_deepspeed", "accelerate.utils.deepspeed:map_pytorch_optim_to_deepspeed"),
    fingerprints={"9c1e292b3b8fd3b8a1b04a309b55677c3c7f9c64ef9a12709849427615dbdc7a": "1.15.0"},
)
