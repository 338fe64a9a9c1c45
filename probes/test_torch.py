"""PyTorch's own data parallelism changes nothing: DistributedDataParallel and FSDP2 around a plain training loop."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

EVERY = ("ddp", "fsdp2", "fsdp2_offload")


@probe(
    [
        *grid("torch", parallel=EVERY, world_size=(1, 2), windows=(1, 4), sync=("last", "every")),
        *grid("torch", parallel=EVERY, world_size=2, windows=([3, 1],), model=("mlp_frozen", "mlp_tied", "mlp_reused", "mlp_unused", "llama")),
        *grid("torch", parallel=EVERY, world_size=2, windows=([2, 2],), optimizer="adam", clipping=("tight", "loose"),
              checkpoint=("none", "reload")),
        *grid("torch", parallel=EVERY, world_size=2, windows=([2, 2],), optimizer="sgd", clipping="tight", checkpoint="reload"),
        *grid("torch", parallel=EVERY, world_size=2, windows=4, dtype="bf16", grad_accum_dtype=("fp32", "half")),
        *grid("torch", parallel="fsdp2", world_size=2, windows=2, reshard=("true", "false"), model=("mlp", "llama")),
    ]
)  # fmt: skip
def test_data_parallelism_changes_nothing(step: Step) -> None:
    """Handing accumulation, reduction and sharding to PyTorch must not change the step."""
    step.must_be_right()
