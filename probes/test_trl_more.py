"""TRL's trainers of other shapes: online DPO, A*-PO, TPO; XPO, BCO, PRM of older releases. Samples are given, the step is TRL's."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

MODEL = {"framework": "trl", "model": "neox.lm"}


@probe(
    [
        *grid(**MODEL, objective=("online_dpo", "a2po", "tpo"), windows=(1, 4)),
        *grid(**MODEL, objective=("online_dpo_ipo", "tpo_l"), windows=2),
        *grid(**MODEL, objective="a2po", windows=[4, 4, 2], size=2),
    ]
)
def test_the_split_changes_nothing(step: Step) -> None:
    """The step is that of the whole batch, however it is cut into micro-batches."""
    step.must_be_right()


@probe(
    [
        *grid(**MODEL, objective=("online_dpo", "a2po", "tpo"), world_size=2),
        *grid(**MODEL, objective="a2po", world_size=2, windows=4),
    ]
)
def test_ranks_share_the_step(step: Step) -> None:
    """Two ranks make the step that one makes of all samples."""
    step.must_be_right()


@probe(
    [
        *grid(**MODEL, objective="online_dpo", windows=[1, 1], optimizer="adam"),
        *grid("trl", model="neox.lm+lora", objective="tpo"),
    ]
)
def test_steps_and_adapters(step: Step) -> None:
    """A second step starts where the first one ended; an adapter learns what it should."""
    step.must_be_right()


@probe(grid("trl", model="gpt2.lm", objective=("online_dpo", "a2po", "tpo")))
def test_prompts_of_unequal_length(step: Step) -> None:
    """Padding must not change the log-probabilities of what follows."""
    step.must_be_right()


@probe([*grid(**MODEL, objective=("xpo", "bco")), *grid("trl", model="neox.tokens", objective="prm")])
def test_trainers_of_older_releases(step: Step) -> None:
    """One micro-batch is the step, in the trainers that TRL had up to 1.9."""
    step.must_be_right()
