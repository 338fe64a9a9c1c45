"""Optimizer offload applies an old gradient to a parameter that a micro-batch or a step does not use.

Not reported upstream as far as is known. Two buffers on the CPU outlive a step: the accumulator of each
parameter, and the fp32 gradient. Both are filled only when a parameter receives a gradient, the second only in
the last micro-batch of a step. So a parameter that is not used

- in a whole step moves by its gradient of an earlier step (stages 1 and 2);
- in the last micro-batch loses what the others gave it, and moves by an old gradient instead (stage 2);
- in the first micro-batch receives its sum of an earlier step on top (stage 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ..advisory import Advisory
from ..patch import Patch
from ._stage_1_and_2 import MODULE, OFFLOADED_ACCUMULATION, OPTIMIZER

ADVISORY = Advisory(
    id="deepspeed-offload-unused",
    framework="deepspeed",
    title="Optimizer offload gives a parameter that a micro-batch does not use the gradient of an earlier step",
    affected=(("0.14.5", None),),
    trigger=({"stage": (2,), "offload_optimizer": ("cpu",), "left_out_last": (True,)},),
    signature=("stale", "dropped", "unexplained"),
    links=("https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/zero/stage_1_and_2.py",),
    cell="deepspeed-mlp_unused-W1-K4-stage:2-offload_optimizer:cpu",
    patch="deepspeed-offload-unused",
    measured={
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 4, stage 1 [0.14.5]": 3.9e-07,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 4 of 4, stage 1 [0.14.5]": 4.3e-07,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 1, stage 1 [0.14.5]": 0.054,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 4, stage 2 [0.14.5]": 0.019,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 4 of 4, stage 2 [0.14.5]": 0.72,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 1, stage 2 [0.14.5]": 0.054,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 4, stage 1 [0.19.8]": 3.9e-07,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 4 of 4, stage 1 [0.19.8]": 4.3e-07,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 1, stage 1 [0.19.8]": 0.054,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 4, stage 2 [0.19.8]": 0.02,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 4 of 4, stage 2 [0.19.8]": 0.72,
        "deepspeed-mlp_unused: unused in step 2, micro-batch 1 of 1, stage 2 [0.19.8]": 0.054,
    },
    details=(
        "Seen on every release from 0.14.5 to 0.19.8. Right without offload, and at stage 1 as long as every "
        "parameter is used somewhere in each step. Concerns experts, adapters and branches that are switched."
    ),
)

# Parameter ids that have given a gradient to the accumulators since the last step.
_seen: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()


def _accumulate(original: Callable[..., None], optimizer: Any, param: Any) -> None:
    param_id = optimizer.get_param_id(param)
    seen = _seen.setdefault(optimizer, set())
    accumulator = optimizer.accumulated_grads_in_cpu.get(param_id)
    if accumulator is not None and param_id not in seen:
        gradient = optimizer.get_param_gradient_attribute(param)
        # Queued like the copies of the original, so that the order holds on a GPU.
        accumulator.data.copy_(gradient.new_zeros(()).expand_as(accumulator), non_blocking=True)
    seen.add(param_id)
    original(optimizer, param)


def _step(original: Callable[..., Any], optimizer: Any, *args: Any, **kwargs: Any) -> Any:
    if optimizer.cpu_offload:
        _complete(optimizer, _seen.pop(optimizer, set()))
    return original(optimizer, *args, **kwargs)


def _complete(optimizer: Any, seen: set[int]) -> None:
    """Give every parameter that the last micro-batch did not use the fp32 gradient that it should have."""
    compact = getattr(optimizer, "_use_compact_grad_partition_buffer", None)  # from 0.19.5 on
    for group, params in enumerate(optimizer.params_in_partition):
        buffer = optimizer.single_partition_of_fp32_groups[group].grad
        for param in params:
            param_id = optimizer.get_param_id(param)
            # The last micro-batch leaves a norm for each parameter that it used.
            if param_id in optimizer.norm_for_param_grads or buffer is None:
                continue
            _, source_offset, offset, count = optimizer.grad_position[param_id]
            gradient = buffer.view(-1).narrow(0, offset, count)
            if compact is not None and compact(group) and param_id in optimizer._offload_accumulated_param_ids:
                # The sum is not in the accumulator but in a buffer of the whole partition.
                optimizer.copy_grads_in_partition(param, group)
                continue
            if param_id not in seen:
                gradient.zero_()
                continue
            total = optimizer.accumulated_grads_in_cpu[param_id].data.view(-1)
            if total.numel() != count:
                total = total.narrow(0, source_offset, count)
            gradient.copy_(total)
            optimizer.norm_for_param_grads[param_id] = total.double().norm(2)
            if optimizer._has_inf_or_nan(total):
                optimizer.local_overflow = True


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={
        f"{OPTIMIZER}.async_accumulate_grad_in_cpu_via_gpu": _accumulate,
        f"{OPTIMIZER}.step": _step,
    },
    relies_on=(
        *OFFLOADED_ACCUMULATION,
        f"{OPTIMIZER}._use_compact_grad_partition_buffer",
        f"{OPTIMIZER}.complete_grad_norm_calculation_for_cpu_offload",
        f"{OPTIMIZER}.finalize_gradient_accumulation_boundary",
        f"{OPTIMIZER}.get_grad_position",
        f"{OPTIMIZER}.reset_cpu_buffers",
        f"{OPTIMIZER}._has_inf_or_nan",
    ),
    fingerprints={
        "5a8fdab0fba6d2614c04ccf9ca0ca0bf4b76613f25ff0e9e6e6a65f747914919": "0.14.5 .. 0.15.1",
        "fc5678f4241938ceb4bfd527e97da1173b9f31cf2226cea3d65aced040b9772b": "0.15.2 .. 0.16.2",
        "5df10022e6624ce682d6396bde1fee08df805cb4c63d17b882685db718b786dd": "0.16.3 .. 0.16.4",
        "7930dc171cf511c5fabfa23dc77df71f69639c5ff7d9ecef506b073b16adc422": "0.16.5 .. 0.16.9",
        "4dc2ee53217d017a2d38d88c51f6db9818b888199f3ee3571e8b0bd9d75634a1": "0.17.0",
        "9192d12b0e2036701e8138842be3a4f06911b45dc0729fa9fbbeb1edf1a1d977": "0.17.1",
        "dbe6b264973de10b6b296f90a7089a3e6c02586ca37d5ab16bd24bb1237109b9": "0.17.2 .. 0.17.4",
        "9f471ec15350b86662b888e9c58c71a31b1b93407af64175b353e0f1c82f9d5d": "0.17.5",
        "54af0f7933b181e1bec8e90ea7f6b5447cbfecbd51288df33af215899d554720": "0.17.6 .. 0.18.2",
        "f4fe87f61fd8659edb3d2f6e41a65a98d52bf9a16c07b3a64df6e692c74f673b": "0.18.3 .. 0.18.4",
        "2315f5f57df4564c86beb520c410d32c356c2da30308d8516287cbde355076e0": "0.18.5 .. 0.18.7",
        "8a7b88c364e48cd8a238914f506680e689be0878ba6a72ac2d588f8122b1e048": "0.18.8 .. 0.18.9",
        "e72e48107dce09c2e6208e979348c3d7572bff9474bcb742109b050ce5bd6f72": "0.19.0",
        "febef7238a7652dc5e77b27b2da99512b1ac27ec501cc3b2cba2ad9cf5963145": "0.19.1",
        "ec9864932bca7ea6167c8971b089e8732dfd83bd172780524e45984c47251dc7": "0.19.2 .. 0.19.3",
        "7335a6a5a786cd0cdd75f27d691ce5cd3036116ef491c12fa7b50309487c8f3c": "0.19.4",
        "a6c2f109a932b9eb69f5cea3cebd6048681d1870884f01b0d89e448241111eda": "0.19.5",
        "87cf898f2aa090615947a0f0dbf293c1e9a34f7eafa87c943e02a29197cef97b": "0.19.6",
        "e324d799ed5bfc846e16a7fd6a2afbda1a0d52568e4d41c935a562f40531f2e8": "0.19.7",
        "41858773c58f1bd6df2e57bf4c699a331820dd6de23523c8783b5a5f91eb14e0": "0.19.8",
    },
)
