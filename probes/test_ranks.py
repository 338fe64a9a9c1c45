"""Ranks change nothing: data parallelism deals the batch out and must put the gradient together again."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(world_size=2, stage=(0, 1, 2, 3), windows=(1, 2, 4, 8)),
        *grid(world_size=2, stage=(1, 2, 3), windows=(1, 4), offload_optimizer="cpu", optimizer=("sgd", "cpu_adam")),
        *grid(world_size=2, stage=(1, 2), windows=(1, 2), contiguous_gradients=("false", "true"),
              reduce_scatter=("unset", "false"), bucket=("large", "small")),
        *grid(world_size=2, stage=(0, 1, 2, 3), windows=2, uneven=True, model=("mlp_tied", "mlp_reused", "llama")),
        *grid(world_size=2, stage=(1, 2), windows=2, round_robin_gradients="true", overlap_comm=("true", "false")),
        *grid(world_size=2, stage=(0, 1, 2), windows=(1, 4), dtype="bf16", grad_accum_dtype=("unset", "fp32")),
    ]
)  # fmt: skip
def test_ranks_change_nothing(step: Step) -> None:
    """Dealing the batch out over two ranks must not change the step."""
    step.must_be_right()
