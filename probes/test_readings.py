"""What the reading APIs return is what the step used: a wrong reading misleads, even where the step is right."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(read="grad", windows=(1, 2, 4), stage=(1, 2, 3), offload_optimizer=("none", "cpu")),
        *grid(read="grad", windows=(1, 4), stage=(1, 2), dtype="bf16", grad_accum_dtype=("unset", "fp32")),
    ]
)
def test_readings_are_true(step: Step) -> None:
    """safe_get_full_grad before the step must return the gradient that the step consumes."""
    step.must_be_right()
