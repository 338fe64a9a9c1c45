"""DeepSpeedPlugin cannot switch gradient clipping off: 0.0 is not passed on, and what is not given becomes 1.0.

The plugin writes gradient_clipping into the configuration only where it is not zero, so that DeepSpeed's own default is
in force: 1.0 since DeepSpeed 0.19.3 (#8068), nothing before. Where it is not given it is "auto", and prepare() fills
that with 1.0 in every release. https://huggingface.co/docs/accelerate/usage_guides/deepspeed says neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

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
    patch="accelerate-plugin-clipping",
    measured={
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin [1.4.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin [1.15.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin-clipping:unset [1.15.0]": 0.769,
        "accelerate-mlp-W1-K2-engine:deepspeed-stage:1 [1.15.0]": 1.61e-07,
    },
    details='Pass the configuration as hf_ds_config with "gradient_clipping": 0.0.',
)


def _post_init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
    by_arguments = self.hf_ds_config is None and os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") == "none"
    original(self, *args, **kwargs)
    if by_arguments and self.gradient_clipping == 0:
        self.deepspeed_config["gradient_clipping"] = 0.0
    # "auto" stays for now: transformers' Trainer fills it with a norm of its own
    self._truestep_unasked = by_arguments and self.gradient_clipping == "auto"


def _prepare_deepspeed(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    plugin = self.deepspeed_plugin
    if getattr(plugin, "_truestep_unasked", False) and plugin.deepspeed_config.get("gradient_clipping") == "auto":
        plugin.deepspeed_config["gradient_clipping"] = 0.0
    return original(self, *args, **kwargs)


PATCH = Patch(
    advisory=ADVISORY,
    module="accelerate.accelerator",
    around={"DeepSpeedPlugin.__post_init__": _post_init, "Accelerator._prepare_deepspeed": _prepare_deepspeed},
    # the first is not defined there, only imported: the second is its source
    relies_on=(
        "DeepSpeedPlugin.__post_init__",
        "accelerate.utils.dataclasses:DeepSpeedPlugin.__post_init__",
        "Accelerator._prepare_deepspeed",
    ),
    fingerprints={"747cbe74c8c9b036568db07a6a54da000aed76edd0ecc5bb0bea830339194741": "1.15.0"},
)
