"""OpenRLHF's other command lines: preferences, reward models and what else learns from given samples."""

from functools import partial

from truestep.probes.base import grid, probe

from truestep.plugin import Step

lm = partial(grid, "openrlhf", model="llama.lm")
reward = partial(grid, "openrlhf", model="llama.value")


@probe(
    [
        *lm(objective=("dpo_sigmoid", "dpo_ipo_sum", "dpo_smoothed", "dpo_ftx"), windows=(1, 4, 8)),
        *reward(objective=("reward", "reward_margin"), windows=(1, 4, 8)),
        *reward(objective=("reward", "reward_margin"), pairwise="logexp", windows=4),
        *lm(objective="kto_after", windows=(1, 8)),
    ]
)
def test_the_split_changes_nothing_in_preferences(step: Step) -> None:
    """The loss of a pair or of a liked sample must be the one that was chosen, however many a micro-batch holds."""
    step.must_be_right()


@probe(
    [
        *lm(objective=("whole_mean", "turns", "prm_tokens"), windows=(1, 4)),
        *lm(objective="response_distil", batch="prompted", windows=(1, 4)),
    ]
)
def test_the_split_changes_nothing_in_other_training_of_tokens(step: Step) -> None:
    """Pre-training, conversations, distillation and process rewards: every token that is trained weighs the same."""
    step.must_be_right()


@probe(
    [
        *lm(objective=("dpo_sigmoid", "dpo_ftx", "whole_mean"), windows=[4, 4, 4], size=2, epochs=2, seed=1),
        *lm(objective="kto_after", windows=[4, 4, 4], size=2, epochs=2),
        *reward(objective="reward", windows=([4, 4, 4], [2, 2, 2])),
        *reward(objective="reward", windows=[4, 4, 4], size=2, epochs=2),
    ]
)
def test_windows_and_epochs(step: Step) -> None:
    """A window that goes on over the end of an epoch is a step like any other."""
    step.must_be_right()


@probe(
    [
        *lm(objective=("dpo_sigmoid", "dpo_ipo_sum", "dpo_ftx", "whole_mean"), windows=2, world_size=2),
        *lm(objective="dpo_sigmoid", windows=[4, 4, 4], size=1, epochs=2, world_size=2),
        *reward(objective=("reward", "reward_margin"), windows=(1, 4), world_size=2),
        # what KTO subtracts is a mean over the ranks; in the first step it is nothing
        *lm(objective="kto_after", windows=([2, 2],), world_size=2, seed=3),
        *lm(objective="kto_after", windows=[4, 4, 4], size=2, epochs=2, world_size=2, seed=3),
    ]
)
def test_ranks_change_nothing(step: Step) -> None:
    """Two ranks with half of the samples each must take the step of one."""
    step.must_be_right()


@probe(
    [
        *lm(objective="dpo_sigmoid", stage=(0, 1, 3), windows=4),
        *lm(objective="dpo_sigmoid", stage=(1, 2, 3), offload_optimizer="cpu", windows=4),
        *reward(objective="reward", stage=(0, 1, 3), windows=4),
        *reward(objective="reward", stage=2, offload_optimizer="cpu", windows=4, world_size=(1, 2)),
        *lm(objective="dpo_sigmoid", stage=3, windows=2, world_size=2),
        *lm(objective="dpo_sigmoid", clipping=("unset", "tight"), windows=4),
        *reward(objective="reward", clipping="tight", windows=4),
    ]
)
def test_the_engine_changes_nothing(step: Step) -> None:
    """Whatever the stage and wherever the optimizer lives, the step must be the same, clipped by the norm of the whole step."""
    step.must_be_right()


@probe(
    [
        *lm(objective=("dpo_sigmoid", "dpo_ftx", "kto_after"), dtype="bf16", windows=4),
        *reward(objective=("reward", "reward_margin"), dtype="bf16", windows=4),
        *lm(objective="dpo_sigmoid", dtype="bf16", windows=4, world_size=2),
    ]
)
def test_half_precision_is_no_excuse(step: Step) -> None:
    """In bf16 the step must be that of a plain loop in bf16, whose model to compare with is in bf16 as well."""
    step.must_be_right()


@probe(
    [
        *lm(objective=("dpo_sigmoid", "whole_mean"), loss="logged", windows=(1, 4)),
        *lm(objective="dpo_sigmoid", loss="logged", windows=[4, 4, 4], size=2, epochs=2, seed=1),
        *reward(objective="reward", loss="logged", windows=(1, 4)),
        *lm(objective="dpo_sigmoid", loss="logged", windows=4, world_size=2),
        *reward(objective="reward", loss="logged", windows=4, world_size=2),
    ]
)
def test_the_log_tells_the_loss_of_the_step(step: Step) -> None:
    """What is logged as the mean loss of a step must be that of its samples, all micro-batches and all ranks."""
    step.must_be_right()
