"""ZeRO-1 in bf16 with fp32 accumulation and optimizer offload never averages the gradients over the ranks.

Not reported upstream as far as is known. The fp32 sum is rounded to bf16 for the all-reduce; the result of the
all-reduce stays in that copy, and what goes on to the optimizer is the sum of this rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ..advisory import Advisory
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OPTIMIZER

ADVISORY = Advisory(
    id="deepspeed-offload-unreduced",
    framework="deepspeed",
    title="ZeRO-1 in bf16 with fp32 accumulation and optimizer offload never averages over the ranks",
    affected=(("0.14.5", "0.19.8"),),
    trigger=(
        {
            "stage": (1,),
            "offload_optimizer": ("cpu",),
            "dtype": ("bf16",),
            "grad_accum_dtype": ("fp32",),
            "world_size": {"min": 2},
        },
    ),
    signature=("unreduced",),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.7/deepspeed/runtime/zero/stage_1_and_2.py",),
    cell="deepspeed-mlp-W2-K4-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32",
    patch="deepspeed-offload-unreduced",
    measured={
        "deepspeed-mlp-W2-K4x3-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32 [0.14.5]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32 [0.16.9]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32 [0.19.0]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32 [0.19.7]": 0.83,
        "deepspeed-mlp-W2-K4x3-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32 [0.19.8]": 0.0052,
    },
    details=(
        "Each rank updates its partition with its own gradient. Seen from 0.14.5 on, the oldest release that was "
        "run; right in 0.19.8, where the fp32 sum itself is reduced. Stage 2 is not affected."
    ),
)

# The copies under reduction, by parameter id.
_reduced: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()


def _concerns(optimizer: Any) -> bool:
    if not (optimizer.cpu_offload and optimizer.use_grad_accum_attribute):
        return False
    from deepspeed import comm

    # Alone, the fp32 sum is right as it is, and better than a copy in bf16.
    return int(comm.get_world_size(group=optimizer.dp_process_group)) > 1


def _for_reduction(original: Callable[..., Any], optimizer: Any, param: Any) -> Any:
    if not _concerns(optimizer) or param.grad_accum is None:
        return original(optimizer, param)
    # One and the same copy for everybody who asks during a reduction, so that its result can be found again.
    copies = _reduced.setdefault(optimizer, {})
    param_id = optimizer.get_param_id(param)
    if param_id not in copies:
        copies[param_id] = original(optimizer, param)
    return copies[param_id]


def _copy(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    result = _reduced.get(optimizer, {}).pop(optimizer.get_param_id(param), None)
    if result is not None and _concerns(optimizer):
        param.grad_accum.data.copy_(result.data.view_as(param.grad_accum))
    original(optimizer, param)


def _epilogue(original: Callable[..., None], optimizer: Any) -> None:
    original(optimizer)
    # What is left belongs to other ranks.
    _reduced.pop(optimizer, None)


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={
        f"{OPTIMIZER}.get_gradient_for_reduction": _for_reduction,
        f"{OPTIMIZER}.copy_grads_in_partition": _copy,
        f"{OPTIMIZER}.independent_gradient_partition_epilogue": _epilogue,
    },
    relies_on=tuple(
        f"{OPTIMIZER}.{name}"
        for name in (
            "async_inplace_copy_grad_to_fp32_buffer_from_gpu",
            "copy_grads_in_partition",
            "get_gradient_for_reduction",
            "get_param_gradient_attribute",
            "independent_gradient_partition_epilogue",
            "reduce_gradients",
            "reduce_independent_p_g_buckets_and_remove_grads",
            "reduce_ipg_grads",
        )
    ),
    fingerprints={
        "5f18feec5c4befa351cd9a0633c017788055f2ff2ed27d1746032d645eb14561": "0.14.5 .. 0.16.2",
        "295a993a7b48ab22c622a4f2cee1f78cf3515e30b5048c73ab8021339774a8d2": "0.16.3 .. 0.16.9",
        "66f680b63cc410faf9eaa4242ad7039073ce8ae22bd60cc98a74aa9969fa4c50": "0.17.0",
        "d998c5372c5a8c13b035097fe2c68a7630d5a9c03ccadaa6f415c895198075c9": "0.17.1",
        "83654d183284f50b7213bca7c1fbd5894026bbbfd47ef43da5a207555fae0261": "0.17.2 .. 0.17.4",
        "f45e6b4ccc7910b8d812bca91cb3cc3d00db365890ba6b21c737e7a71ced4c17": "0.17.5",
        "885e499deb90ec6891962a751599d3e6153ed511e196a4e479ddac7b7f4518f6": "0.17.6 .. 0.18.0",
        "28b1e0322be768783db1a3d1e0159391457726a31c2dddd7ebef34d07a9fc7dd": "0.18.1",
        "2d88ada2582221df9edfc149f92b7f879bb2efaddffb804beb6f087ebaab73b3": "0.18.2",
        "6f553e59c5ce3edd5d2e4b0736c2fd1d49eb997ab4c32a2fe20a3a5ad13385e7": "0.18.3 .. 0.18.4",
        "a6b4b88f2d52db32b3e07ebc9d1645d4f71195c1333615851a87933952c9ec9d": "0.18.5",
        "9621d24201d129f8348bcbe686bbcbcbc87b5283488b4a5e4fd4eee59f2f4215": "0.18.6 .. 0.18.7",
        "8978104a78677ad08241a7a6279a8ab24e6463b37e639fbf306143df075d1885": "0.18.8 .. 0.18.9",
        "b53522983d1913db0276779610f50a7f7c44c1ff88018a4695da0daa224783e9": "0.19.0 .. 0.19.2",
        "59f34d19c88a86a2beedbd3539d71680427bbe1897a7c51f7dae3a13c59092df": "0.19.3 .. 0.19.4",
        "21ffe74917f63a6277c299a7ca4524d9d425b288239e374f0361483a94cb6ca5": "0.19.5",
        "67f862fb021bc4596a41f0fcd1cf8100a0659eb80396cacbe15213443e219b8c": "0.19.6 .. 0.19.7",
    },
)
