"""OpenRLHF's supervised fine-tuning, as its command line runs it: the token mean over all responses of an optimizer step."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

SFT = {"framework": "openrlhf", "model": "llama.lm", "objective": "response_mean", "batch": "prompted"}


@probe(
    [
        *grid(**SFT, windows=(1, 2, 4, 8)),
        *grid(**SFT, windows=(2, 4), size=1),
        *grid(**{**SFT, "model": "gpt2.lm"}, windows=4),
        *grid(**{**SFT, "batch": "equal"}, windows=4),
    ]
)
def test_micro_batches_change_nothing(step: Step) -> None:
    """However an optimizer step is cut into micro-batches, every response token weighs the same."""
    step.must_be_right()


@probe(grid(**SFT, windows=(1, 2, 4, 8), world_size=2))
def test_ranks_change_nothing(step: Step) -> None:
    """Nor does it matter how many ranks share the samples."""
    step.must_be_right()


@probe(
    [
        *grid(**SFT, windows=([4, 4, 4],), size=4, epochs=2),
        *grid(**SFT, windows=([2, 2, 2],), size=8, epochs=2),
        *grid(**SFT, windows=([4, 4, 4],), size=2, epochs=2, world_size=2),
        *grid(**SFT, windows=([8, 8, 8],), size=2, epochs=2),
        *grid(**SFT, windows=([2, 2],), epochs=2),
    ]
)
def test_windows_may_span_epochs(step: Step) -> None:
    """Where an epoch is no multiple of the accumulation steps, a window goes on into the next: its tokens weigh the same too."""
    step.must_be_right()


@probe(
    [
        *grid(**SFT, windows=4, stage=(0, 1, 3)),
        *grid(**SFT, windows=8, stage=(1, 2, 3), offload_optimizer="cpu"),
        *grid(**SFT, windows=([4, 4],), offload_optimizer="cpu"),
        *grid(**SFT, windows=4, stage=(0, 3), world_size=2),
        *grid(**SFT, windows=4, stage=2, offload_optimizer="cpu", world_size=2),
    ]
)
def test_zero_and_offload_change_nothing(step: Step) -> None:
    """ZeRO stages and the offloaded optimizer save memory, nothing else."""
    step.must_be_right()


@probe(
    [
        *grid(**SFT, dtype="bf16", windows=(1, 4, 8)),
        *grid(**SFT, dtype="bf16", windows=(1, 4), world_size=2),
        *grid(**SFT, dtype="bf16", windows=4, offload_optimizer="cpu", world_size=(1, 2)),
        *grid(**SFT, dtype="bf16", windows=8, stage=3),
        *grid(**SFT, dtype="bf16", windows=([4, 4, 4],), size=2, epochs=2),
    ]
)
def test_half_precision_is_no_excuse(step: Step) -> None:
    """In bf16, in which models are really trained, the step must be that of a plain loop in bf16."""
    step.must_be_right()


@probe(grid(**SFT, windows=4, clipping=("unset", "tight")))
def test_clips_the_gradient_of_the_step(step: Step) -> None:
    """--max_norm limits the norm of the whole step's gradient."""
    step.must_be_right()


@probe(
    [
        *grid(**SFT, loss="logged", windows=(1, 4)),
        *grid(**SFT, loss="logged", windows=([4, 4, 4],), size=4, epochs=2),
        *grid(**SFT, loss="logged", windows=(1, 4), world_size=2),
    ]
)
def test_logs_the_loss_of_the_step(step: Step) -> None:
    """What is logged for an optimizer step must be the mean over the tokens of that step."""
    step.must_be_right()
