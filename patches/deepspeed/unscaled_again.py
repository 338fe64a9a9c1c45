"""engine.backward(loss, scale_wrt_gas=False) divides by the accumulation steps again, from 0.19.6 on.

Where forward returns the loss and the optimizer wrapper hands it on as it is (no ZeRO optimizer, or BF16_Optimizer),
the hook on the output runs before the one that would tell it that engine.backward is in charge, so the flag is lost.
Not reported upstream as far as is known. #7724 was the same mistake in 0.18.3.
"""

from __future__ import annotations

from ..advisory import Advisory

ADVISORY = Advisory(
    id="truestep-2026-3",
    framework="deepspeed",
    title="scale_wrt_gas=False is ignored at stage 0 and with BF16_Optimizer: the gradient is divided by the accumulation steps",
    affected=(("0.19.6", None),),
    trigger=(
        {
            "backward": ("unscaled",),
            "accumulate": ("managed", "boundary_k"),
            "returns": ("loss", "both"),
            "clipping": {"not": ("tight",)},  # which hides the scale, but for the norm that is reported in bf16
            "K": {"min": 2},
            "stage": (0,),
        },
        {
            "backward": ("unscaled",),
            "accumulate": ("managed", "boundary_k"),
            "returns": ("loss", "both"),
            "clipping": {"not": ("tight",)},  # which hides the scale, but for the norm that is reported in bf16
            "K": {"min": 2},
            "stage": (1,),
            "offload_optimizer": ("none",),
            "dtype": ("bf16",),
            "grad_accum_dtype": ("fp32",),
        },
        {
            "backward": ("unscaled",),
            "accumulate": ("managed", "boundary_k"),
            "returns": ("loss", "both"),
            "clipping": ("tight",),
            "K": {"min": 2},
            "stage": (0,),
            "dtype": ("bf16",),
        },
        {
            "backward": ("unscaled",),
            "accumulate": ("managed", "boundary_k"),
            "returns": ("loss", "both"),
            "clipping": ("tight",),
            "K": {"min": 2},
            "stage": (1,),
            "offload_optimizer": ("none",),
            "dtype": ("bf16",),
            "grad_accum_dtype": ("fp32",),
        },
        {
            # the Trainer hands the model's own loss on where it does not multiply it by the number of ranks, and asks for no division
            # since https://github.com/huggingface/transformers/pull/35808
            "engine": ("deepspeed",),
            "backward": ("unscaled",),
            "compute_loss": ("model",),
            "accepts_items": (True,),
            "averages": (False,),
            "clipping": {"not": ("tight",)},
            "K": {"min": 2},
            "stage": (0,),
        },
    ),
    signature=("scaled", "norm", "reading"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/engine.py",),
    cell="deepspeed-mlp-W1-K4-backward:unscaled",
    measured={
        "deepspeed-mlp-W1-K4-backward:unscaled [0.19.5]": 1.7e-07,
        "deepspeed-mlp-W1-K4-backward:unscaled [0.19.6]": 0.75,
        "deepspeed-mlp-W1-K4-backward:unscaled [0.19.8]": 0.75,
        "deepspeed-mlp-W1-K4-backward:unscaled-returns:both [0.19.8]": 0.75,
        "deepspeed-mlp-W1-K4-backward:unscaled-returns:output [0.19.8]": 1.7e-07,
        "deepspeed-mlp-W1-K4-stage:2-backward:unscaled [0.19.8]": 1.7e-07,
        "transformers-llama.lm-W1-K4-average_tokens:false-engine:deepspeed [0.19.8]": 0.75,
    },
    details="Under transformers' Trainer with average_tokens_across_devices=False, the default up to 4.53. Right where the loss is computed outside the model, and with ZeRO stages 1 to 3 otherwise.",
)
