"""Optimizer state is right, and so are the second and the third step."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(windows=([4, 4, 4], [2, 2, 2]), stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"),
              optimizer=("sgd", "adam", "cpu_adam")),
        *grid(windows=[2, 2, 2], stage=(1, 2, 3), optimizer=("adam", "cpu_adam"), offload_optimizer="cpu", model=("mlp_tied", "llama")),
        *grid(windows=[2, 2, 2], stage=(0, 1, 2), optimizer=("sgd", "adam"), dtype="bf16", grad_accum_dtype=("unset", "fp32")),
        *grid(windows=[4, 4, 4], stage=(2, 1), accumulate="boundary", offload_optimizer="cpu", optimizer=("sgd", "cpu_adam")),
    ]
)  # fmt: skip
def test_state_and_later_steps_are_right(step: Step) -> None:
    """Every step must start from the state that the last one left, and update it by the optimizer's formula."""
    step.must_be_right()
