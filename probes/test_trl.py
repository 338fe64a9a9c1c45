"""TRL's trainers that learn from given samples: SFT, reward models, DPO and its relatives, KTO, ORPO, CPO."""

from truestep.fixtures.drivers._trl_offline import DPO
from truestep.probes.base import grid, probe

from truestep.plugin import Step

PAIRS = (*DPO, "orpo", "cpo", "simpo", "kto", "kto_apo")


@probe(
    [
        *grid("trl", model="llama.lm", objective=("token_mean", "dft", "smoothed"), windows=(1, 4, 8), batch=("ragged", "prompted")),
        *grid("trl", model=("gpt2.lm", "neox.lm"), windows=4, batch=("ragged", "prompted")),
        *grid("trl", model="mixtral.lm", objective="router", windows=(1, 8), batch="prompted"),
    ]
)
def test_the_split_changes_nothing_in_sft(step: Step) -> None:
    """Cutting a batch of SFT into micro-batches must not change the step, whichever tokens are trained."""
    step.must_be_right()


@probe(
    [
        *grid("trl", model="llama.lm", objective=PAIRS, windows=(1, 4)),
        *grid("trl", model="llama.lm", objective=("dpo_sigmoid", "dpo_aot", "kto", "kto_apo"), windows=8),
        *grid("trl", model="llama.value", objective=("reward", "reward_centered"), windows=(1, 4, 8)),
    ]
)
def test_the_split_changes_nothing_in_preferences(step: Step) -> None:
    """The loss of a pair is a mean over pairs: how many of them a micro-batch holds must not change the step."""
    step.must_be_right()


@probe(
    [
        *grid("trl", model="llama.lm", packing=("padding_free", "bfd"), attention=("eager", "sdpa"), windows=(1, 8), batch=("ragged", "prompted")),
        *grid("trl", model="llama.lm", objective="dft", packing=("padding_free", "bfd"), windows=(1, 8), batch=("ragged", "prompted")),
    ]
)
def test_packing_changes_nothing(step: Step) -> None:
    """Samples that share a row must not see each other, and none may be lost on the way into it."""
    step.must_be_right()


@probe(
    [
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid", "simpo"), windows=([4, 4, 2], [4, 1]), size=2),
        *grid("trl", model="llama.lm", objective="kto_apo", windows=[4, 1], size=2),
        *grid("trl", model="llama.value", objective="reward", windows=[4, 1], size=2),
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid", "kto"), windows=[4, 2, 4, 2], size=2, epochs=2),
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid", "kto"), windows=[4, 4, 4], optimizer=("sgd", "adam")),
    ]
)
def test_windows_and_epochs(step: Step) -> None:
    """A last window that is shorter, a second epoch and a third step are steps like any other."""
    step.must_be_right()


@probe(
    [
        *grid("trl", model="llama.lm", objective=("token_mean", "dft", "dpo_sigmoid", "dpo_ipo", "kto_apo"), windows=(1, 4), world_size=2),
        *grid("trl", model="llama.lm", packing=("padding_free", "bfd"), windows=(1, 4), world_size=2),
        *grid("trl", model="llama.value", objective="reward", windows=(1, 4), world_size=2),
        *grid("trl", model="mixtral.lm", objective="router", windows=(1, 4), world_size=2, batch="prompted"),
    ]
)
def test_ranks_change_nothing(step: Step) -> None:
    """Two ranks with half of the samples each must take the step of one."""
    step.must_be_right()


@probe(
    [
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid", "kto"), checkpointing="on", windows=(1, 4)),
        *grid("trl", model="llama.lm", objective=("dpo_sigmoid", "dpo_ipo", "kto"), precompute="on", windows=(1, [4, 4])),
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid"), clipping=("unset", "tight", "loose"), windows=(1, 4)),
        *grid("trl", model="llama.lm", objective=("token_mean", "dpo_sigmoid"), schedule="linear", windows=[2, 2, 2]),
    ]
)
def test_settings_do_what_they_say(step: Step) -> None:
    """Checkpointing and reference log-probabilities computed before change nothing; clipping and the schedule what is asked."""
    step.must_be_right()
