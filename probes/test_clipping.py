"""Clipping and the reported norm are right: clip once, by the norm of the whole accumulated gradient."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(clipping=("tight", "loose"), stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(1, 4, [4, 4, 4])),
        *grid(clipping="tight", stage=(1, 2, 3), offload_optimizer="cpu", optimizer="cpu_adam", windows=(1, 4)),
        *grid(clipping="tight", stage=(0, 1, 2), dtype="bf16", windows=(1, 4)),
        *grid(clipping="tight", stage=(0, 1, 2, 3), world_size=2, windows=(1, 2)),
        *grid(clipping="tight", stage=(0, 1, 2, 3), windows=2, model=("mlp_frozen", "mlp_tied", "llama")),
    ]
)
def test_clipping_and_norm_are_right(step: Step) -> None:
    """The gradient must be clipped by the norm of the whole accumulated gradient, and that norm reported."""
    step.must_be_right()
