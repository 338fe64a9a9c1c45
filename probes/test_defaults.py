"""What the user did not set has not changed meaning between releases."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(clipping="unset", stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(1, 4)),
        *grid(clipping="unset", stage=(0, 1, 2), dtype="bf16", windows=2),
    ]
)
def test_no_clipping_was_asked_for(step: Step) -> None:
    """A configuration without gradient_clipping must not clip (its meaning until 0.19.2)."""
    step.must_be_right()
