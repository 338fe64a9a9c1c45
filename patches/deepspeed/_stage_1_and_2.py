"""What the cures of ``deepspeed.runtime.zero.stage_1_and_2`` have in common."""

from __future__ import annotations

from typing import Any

MODULE = "deepspeed.runtime.zero.stage_1_and_2"
OPTIMIZER = "DeepSpeedZeroOptimizer"

OFFLOADED_ACCUMULATION: tuple[str, ...] = tuple(
    f"{OPTIMIZER}.{name}"
    for name in (
        "async_accumulate_grad_in_cpu_via_gpu",
        "async_inplace_copy_grad_to_fp32_buffer_from_gpu",
        "backward",
        "backward_prologue",
        "copy_grads_in_partition",
        "get_param_gradient_attribute",
        "process_gradients",
        "reduce_ipg_grads",
        "reduce_ready_partitions_and_remove_grads",
        "set_norm_for_param_grad_in_gpu",
        "setup_buckets",
        "step",
    )
)
"""The path of a gradient from backward to the fp32 buffer on the CPU, and what counts micro-steps on the way."""


def settle_accumulator(optimizer: Any, param: Any) -> None:
    """Leave in the parameter's accumulator what the next micro-batch must find there.

    Inside a window that is the sum so far, which the gradient holds at this point. At its end it is nothing:
    the sum goes on to the fp32 buffer, and what is left behind would be added to the next window. Writing the
    sum back at the end too (as upstream's own fix does) is wrong up to 0.16.4, where stage 1 calls this at the
    end of a window only, with a micro-step above zero.

    Doing it twice changes nothing. Every copy is queued like the ones around it, so the order holds on a GPU.
    """
    param_id = optimizer.get_param_id(param)
    accumulator = optimizer.accumulated_grads_in_cpu[param_id]
    gradient = optimizer.get_param_gradient_attribute(param).data.view(-1)
    if gradient.numel() != accumulator.numel():
        # With low-precision master weights the accumulator covers this rank's part of the parameter only.
        _, source_offset, _, count = optimizer.grad_position[param_id]
        gradient = gradient.narrow(0, source_offset, count)
    at_end = optimizer.is_gradient_accumulation_boundary
    accumulator.data.copy_(gradient.new_zeros(()).expand_as(gradient) if at_end else gradient, non_blocking=True)
