"""DeepSpeedPlugin cannot switch gradient clipping off: 0.0 is not passed on, and what is not given becomes 1.0.

The plugin writes gradient_clipping into the configuration only where it is not zero, so that DeepSpeed's own default is
in force: 1.0 since DeepSpeed 0.19.3 (#8068), nothing before. Where it is not given it is "auto", and prepare() fills
that with 1.0 in every release. https://huggingface.co/docs/accelerate/usage_guides/deepspeed says neither.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="accelerate-plugin-clipping",
    framework="accelerate",
    title="DeepSpeedPlugin clips to norm 1 without being asked, and gradient_clipping=0.0 does not switch it off",
    affected=(("1.4.0", None),),
    trigger=(
        {"engine": ("deepspeed",), "config": ("plugin",), "clipping": ("unset",)},
        {"engine": ("deepspeed",), "config": ("plugin",), "clipping": ("off",), "clips_by_default": ("true",)},
    ),
    signature=("clipped", "norm"),
    links=("https://huggingface.co/docs/accelerate/usage_guides/deepspeed", "https://github.com/deepspeedai/DeepSpeed/pull/8068"),
    cell="accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin-clipping:unset",
    measured={
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin [1.4.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin [1.15.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin-clipping:unset [1.15.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1 [1.15.0]": 1.61e-07,
    },
    details='Pass the configuration as hf_ds_config with "gradient_clipping": 0.0.',
)
