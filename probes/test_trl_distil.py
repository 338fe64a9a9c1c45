"""TRL's trainers that learn from a teacher: GKD, GOLD and DistillationTrainer. The completions are given, the step is TRL's."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

GKD = ("gkd", "gkd_forward", "gkd_reverse", "gkd_skewed")
DISTIL = ("distil", "distil_forward", "distil_skewed", "distil_temperature")
MODEL = {"framework": "trl", "model": "neox.lm"}


@probe(
    [
        *grid(**MODEL, objective=(*GKD, *DISTIL), windows=4),
        *grid(**MODEL, objective=("gkd", "distil"), windows=1),
        *grid(**MODEL, objective="gkd", batch="prompted", windows=1),
        *grid(**MODEL, objective="gold", windows=(1, 4)),
        *grid(**MODEL, objective="gkd", windows=[4, 2], size=2),
        *grid(**MODEL, objective="distil", windows=[4, 4, 4], optimizer="adam"),
    ]
)
def test_the_split_changes_nothing(step: Step) -> None:
    """The divergence from the teacher is a mean over all tokens of a step, however it is cut into micro-batches."""
    step.must_be_right()


@probe(grid(**MODEL, objective="gkd", completions=("student", "teacher"), windows=4))
def test_tokens_that_were_generated_are_counted(step: Step) -> None:
    """Completions of the student or the teacher weigh as much as if they had been those of the data set."""
    step.must_be_right()


@probe(
    [
        *grid(**MODEL, objective="distil", checkpointing="on", windows=4),
        *grid("trl", model="neox.lm+lora", objective=("gkd", "distil"), windows=4),
        *grid("trl", model="gpt2.lm", objective=("gkd", "distil"), windows=4),
        *grid("trl", model="modernbert_decoder.lm", objective="distil", batch="equal", windows=1),
    ]
)
def test_every_model_is_a_student(step: Step) -> None:
    """Checkpointing, an adapter, positions that are learned and a head of its own change nothing."""
    step.must_be_right()


@probe(grid(**MODEL, objective=("gkd", "distil"), world_size=2, windows=4))
def test_ranks_share_the_step(step: Step) -> None:
    """Two ranks make the step that one makes of all samples."""
    step.must_be_right()
