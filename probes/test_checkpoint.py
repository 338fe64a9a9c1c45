"""Save and load change nothing."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(checkpoint="reload", windows=([2, 2, 2], [4, 4]), stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"),
              optimizer=("sgd", "adam", "cpu_adam")),
        *grid(checkpoint="reload", windows=[2, 2], stage=(1, 2), model=("mlp_tied", "mlp_frozen", "llama")),
        *grid(checkpoint="reload", windows=[2, 2], stage=(0, 1, 2), dtype="bf16", grad_accum_dtype=("unset", "fp32")),
    ]
)  # fmt: skip
def test_save_and_load_change_nothing(step: Step) -> None:
    """Saving, rebuilding and loading between two steps must not change the next step."""
    step.must_be_right()
