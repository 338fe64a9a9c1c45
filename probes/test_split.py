"""The split changes nothing: the step depends on the batch, not on how it is cut into micro-batches."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid(stage=(0, 1, 2, 3), windows=(1, 2, 3, 4, 8), uneven=(False, True)),
        *grid(stage=(0, 1, 2, 3), windows=(1, 2, 3, 4, 8), model="llama"),
        *grid(stage=(0, 2), windows=(2, 3, 8), objective="sequence_mean", model=("mlp", "qwen2")),
        *grid(stage=(0, 1, 2, 3), windows=(2, 4), model=("mlp_frozen", "mlp_tied", "mlp_reused", "mlp_unused")),
        *grid(stage=(0, 1, 2, 3), windows=4, returns="output", model=("mlp", "llama")),
        *grid(stage=(1, 2), windows=(2, 4), bucket=("small", "equal"), model=("mlp", "mlp_tied")),
    ]
)
def test_the_split_changes_nothing(step: Step) -> None:
    """Cutting the batch into micro-batches must not change the step."""
    step.must_be_right()


@probe(grid(stage=(0, 1, 2, 3), windows=([3, 1, 4], [4, 2, 1], [1, 8, 2]), offload_optimizer=("none", "cpu")))
def test_windows_may_vary(step: Step) -> None:
    """Accumulation windows that vary (set_train_batch_size between steps) must not change any step."""
    step.must_be_right()
