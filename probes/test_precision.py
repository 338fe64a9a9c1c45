"""Half precision: the step must be the one that a plain loop in that dtype takes."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(dtype="bf16", stage=(0, 1, 2, 3), windows=(1, 2, 3, 4, 8), offload_optimizer=("none", "cpu")),
        *grid(dtype="bf16", stage=(0, 1, 2), windows=(1, 4), grad_accum_dtype=("fp32", "bf16"), model=("mlp", "llama")),
        *grid(dtype="fp16", stage=(0, 2), windows=(1, 4)),
    ]
)
def test_half_precision_takes_the_same_step(step: Step) -> None:
    """Mixed precision may round, but it must take the step of the whole batch."""
    step.must_be_right()


@probe(grid(device="cuda", dtype=("fp32", "bf16"), stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=4))
def test_a_gpu_takes_the_same_step(step: Step) -> None:
    """On a GPU the same cell must take the same step."""
    step.must_be_right()
