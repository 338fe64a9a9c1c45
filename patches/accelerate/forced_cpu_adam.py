"""With optimizer offload accelerate exchanges any optimizer for DeepSpeedCPUAdam, SGD too, without a word.

prepare() does so unless the DeepSpeed configuration holds ``zero_force_ds_cpu_optimizer: false``, which DeepSpeedPlugin's
own arguments cannot say. Adagrad and Lion have counterparts since https://github.com/huggingface/accelerate/pull/3255
(1.2.0); all else becomes Adam, with its default betas. https://huggingface.co/docs/accelerate/usage_guides/deepspeed does
not say it.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-forced-cpu-adam",
    framework="accelerate",
    title="optimizer offload through DeepSpeedPlugin trains with Adam where SGD was given",
    affected=(("1.4.0", None),),
    trigger=({"engine": ("deepspeed",), "config": ("plugin",), "offload_optimizer": ("cpu",), "optimizer": ("sgd",)},),
    signature=("dropped", "unexplained", "update", "moments"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/deepspeed", "https://github.com/huggingface/accelerate/pull/3255"),
    cell="accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-clipping:loose",
    measured={
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-clipping:loose [1.15.0]": 1.0,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:2-offload_optimizer:cpu-config:plugin-optimizer:adam-clipping:loose [1.15.0]": 1.61e-07,
    },
    details="The state holds exp_avg and no momentum_buffer. Give the configuration as hf_ds_config with zero_force_ds_cpu_optimizer: false.",
)
