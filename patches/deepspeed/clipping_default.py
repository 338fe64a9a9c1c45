"""A configuration that does not name gradient_clipping is clipped to norm 1 since 0.19.3, and was not before.

https://github.com/deepspeedai/DeepSpeed/pull/8068 changed the default from 0 (off) to 1.0. The documentation
says 1.0, and had said so while the code did not clip. What it says is what happens now, so this is a choice;
that the meaning of a file has changed is what the reader must know.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="deepspeed-8068",
    framework="deepspeed",
    title="changed: without gradient_clipping in the configuration, gradients are clipped to norm 1",
    affected=(("0.19.3", None),),
    trigger=({"framework": ("deepspeed", "accelerate"), "clipping": ("unset",)},),
    signature=("clipped",),
    links=(
        "https://www.deepspeed.ai/docs/config-json/#gradient-clipping",
        "https://github.com/deepspeedai/DeepSpeed/pull/8068",
    ),
    cell="deepspeed-mlp-W1-K1-clipping:unset",
    measured={"deepspeed-mlp-W1-K1-clipping:unset [0.19.2]": 1.8e-07, "deepspeed-mlp-W1-K1-clipping:unset [0.19.8]": 0.769},
    details="Set gradient_clipping explicitly: 0.0 is off in every release.",
    by_design=True,
)
