"""Offload changes nothing: where optimizer state and parameters live is not part of the mathematics."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

K = (1, 2, 3, 4, 8)


@probe(
    [
        *grid(stage=(2, 1, 3), offload_optimizer=("cpu", "none"), windows=K, model=("mlp", "llama")),
        *grid(stage=2, offload_optimizer="cpu", windows=K, model=("mlp_tied", "mlp_unused", "qwen2")),
        *grid(stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(4, [4, 4, 4]), model="mlp_unused"),
        *grid(stage=(1, 2, 3), offload_optimizer=("none", "cpu"), windows=4, overlap_comm="true", model="mlp_unused"),
        *grid(stage=(1, 2, 3), offload_optimizer="cpu", optimizer="cpu_adam", windows=K, model=("mlp", "llama")),
        *grid(stage=(1, 2, 3), offload_optimizer="cpu", optimizer="cpu_adam", windows=(2, 4), dtype=("fp32", "bf16"),
              model=("mlp_tied", "mlp_frozen", "mlp_reused")),
        *grid(stage=(2, 1), offload_optimizer="cpu", windows=(2, 4), bucket=("small", "equal"), overlap_comm=("true", "false"),
              contiguous_gradients=("true", "false")),
    ]
)  # fmt: skip
def test_optimizer_offload_changes_nothing(step: Step) -> None:
    """Keeping the optimizer's state on the CPU must not change the step."""
    step.must_be_right()


@probe(
    grid(
        stage=3, offload_param="cpu", offload_optimizer=("none", "cpu"), windows=(1, 2, 4), model=("mlp", "mlp_reused", "llama")
    )
)
def test_parameter_offload_changes_nothing(step: Step) -> None:
    """Keeping the parameters on the CPU must not change the step."""
    step.must_be_right()
