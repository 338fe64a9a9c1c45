"""accelerate's loop takes the step that its documentation describes, by itself and on DeepSpeed."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

NAME = "accelerate"


@probe(
    [
        *grid(NAME, world_size=(1, 2), windows=([4, 4, 2],), size=1, via=("accumulate", "no_sync"), objective=("token_mean", "sequence_mean")),
        *grid(NAME, world_size=(1, 2), windows=4, loop="mean", batch=("ragged", "equal")),
        *grid(NAME, world_size=(1, 2), windows=([2, 2],), model=("mlp_tied", "mlp_unused", "llama"), sync_each_batch=("false", "true")),
        *grid(NAME, world_size=(1, 2), windows=([2, 2],), clipping=("tight", "loose"), optimizer="adam", split_batches=("false", "true")),
        *grid(NAME, world_size=2, windows=([2, 2],), schedule="linear", scheduler=("prepared", "own")),
        *grid(NAME, world_size=2, windows=([2, 2],), epochs=2, sampler=("random", "seedable"), dispatch_batches=("unset", "true"), batch="padded"),
        *grid(NAME, world_size=2, windows=([2, 2, 2, 2],), sampler=("sequential", "epoch"), checkpoint="reload", dispatch_batches=("unset", "true"), batch="padded"),
        *grid(NAME, windows=([2, 2, 2, 2],), sampler="epoch", via=("accumulate", "no_sync"), checkpoint=("none", "reload")),
        *grid(NAME, engine="deepspeed", stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(4,), clipping=("off", "tight")),
        *grid(NAME, engine="deepspeed", stage=(0, 2), windows=([4, 4],), via=("accumulate", "no_sync"), gas=("both", "accelerator")),
    ]
)  # fmt: skip
def test_the_documented_loop_takes_the_right_step(step: Step) -> None:
    """A loop written as accelerate's documentation says must take the step of the whole batch."""
    step.must_be_right()
