"""LLaMA-Factory from its front door: SFT, pre-training, DPO, KTO, reward models and PPO, whatever the split and the engine."""

from functools import partial

from truestep.fixtures.drivers._llamafactory import DPO, SFT
from truestep.probes.base import grid, probe

from truestep.plugin import Step

factory = partial(grid, "llamafactory", model="llama.lm")
ppo = partial(grid, "llamafactory", model="llama.lm+valued", clipping="loose")
ZERO = {"engine": "deepspeed"}


@probe(
    [
        *factory(windows=(1, 2, 4, 8), batch=("ragged", "prompted")),
        *factory(objective=tuple(SFT), windows=(1, 4)),
        *factory(objective="document_mean", windows=(1, 4)),
        *grid("llamafactory", model="gpt2.lm", objective=("token_mean", "whole_mean"), windows=(1, 4)),
        *grid("llamafactory", model="mixtral.lm", objective="router", windows=(1, 4)),
    ]
)
def test_the_split_changes_nothing_in_sft(step: Step) -> None:
    """Whatever loss is chosen, cutting the batch into micro-batches must not change the step."""
    step.must_be_right()


@probe(
    [
        *factory(objective=tuple(DPO), windows=(1, 4)),
        *factory(objective=("kto_before", "kto_ftx"), windows=(1, 8)),
        *grid("llamafactory", model="llama.value", objective="reward", windows=(1, 8)),
    ]
)
def test_the_split_changes_nothing_in_preferences(step: Step) -> None:
    """The loss of a pair or of a liked sample must be the one that was chosen, however many a micro-batch holds."""
    step.must_be_right()


@probe(
    [
        *ppo(objective=("ppo_joint", "ppo_joint_whitened"), windows=(1, 4), batch=("ragged", "equal")),
        *ppo(objective="ppo_joint", windows=(1, 4), batch=("ragged", "equal"), follows="nothing"),
        *ppo(objective="ppo_joint_buffer", windows=[1, 1], seed=2),
        *ppo(objective="ppo_joint_buffer", windows=[1] * 4, epochs=2, seed=5),
        *ppo(objective="ppo_joint", windows=[1] * 4, epochs=4),
        *ppo(objective="ppo_joint", windows=1, clipping=("off", "unset", "tight")),
        *ppo(objective="ppo_joint", windows=[1, 1], epochs=2, clipping=("off", "unset", "tight")),
    ]
)
def test_ppo_is_one_step_of_the_whole_rollout(step: Step) -> None:
    """Advantages are those of all that was generated, whatever is padded; a step is the mean over its tokens, clipped as asked."""
    step.must_be_right()


@probe(
    [
        *factory(packing="neat", attention=("eager", "sdpa"), windows=(1, 4)),
        *factory(packing=("packing", "neat"), windows=2),
        *grid(
            "llamafactory",
            model=("gpt_neo.lm", "mistral.lm", "gemma2.lm", "gemma3.lm", "lfm2.lm"),
            packing="neat",
            windows=4,
        ),
        *factory(objective=("turns", "turns_ended", "last_turn", "last_turn_ended"), windows=8),
    ]
)
def test_packing_and_turns_change_nothing(step: Step) -> None:
    """Samples of a row must not see each other unless that was asked for, and only the answers asked for are trained."""
    step.must_be_right()


@probe(
    [
        *factory(windows=([4, 2, 4, 2],), size=2, epochs=2),
        *factory(objective="dpo_sigmoid", windows=[4, 2, 4, 2], size=2, epochs=2),
        *factory(objective=("token_mean", "dpo_sigmoid"), windows=[4, 1], size=2),
        *factory(objective=("token_mean", "dpo_sigmoid", "kto_before"), windows=[4, 4, 4]),
        *factory(objective=("token_mean", "dpo_ftx"), windows=[2, 2, 2], schedule="linear"),
        *factory(windows=([1, 1, 1], [4, 4, 4]), data="iterable"),
        *factory(windows=[4, 2, 4, 2], size=2, epochs=2, data="iterable"),
        *factory(windows=[1, 1, 1], data="drawn"),
    ]
)
def test_windows_and_epochs(step: Step) -> None:
    """A last window that is shorter, a second epoch and a third step are steps like any other."""
    step.must_be_right()


@probe(
    [
        *factory(
            objective=("token_mean", "smoothed", "dft", "eaft", "asft", "last_turn", "dpo_sigmoid", "dpo_ftx"),
            windows=2,
            world_size=2,
        ),
        *factory(windows=(1, 4), world_size=2, average_tokens=("unset", "true")),
        *factory(packing="neat", windows=2, world_size=2),
        *grid("llamafactory", model="llama.lm+lora", objective=("token_mean", "dpo_adapter"), windows=2, world_size=2),
        *grid("llamafactory", model="llama.value", objective="reward", windows=2, world_size=2),
    ]
)
def test_ranks_change_nothing(step: Step) -> None:
    """Two ranks with half of the samples each must take the step of one."""
    step.must_be_right()


@probe(
    [
        *factory(objective=("token_mean", "dpo_sigmoid", "kto_before"), checkpointing="on", windows=4),
        *factory(clipping=("unset", "tight", "loose"), windows=(1, 4)),
        *factory(objective="dpo_sigmoid", clipping=("unset", "tight"), windows=4),
        *grid(
            "llamafactory",
            model=("llama.lm+lora", "llama.lm+rslora", "llama.lm+dora"),
            windows=(1, 4),
            checkpointing=("off", "on"),
        ),
        *grid("llamafactory", model="llama.lm+lora", objective="dpo_adapter", windows=(1, 4), checkpointing=("off", "on")),
        *grid("llamafactory", model="llama.lm+top", objective=("token_mean", "last_turn"), windows=(1, 4)),
        *grid("llamafactory", model="llama.lm+top", windows=4, checkpointing="on"),
    ]
)
def test_settings_do_what_they_say(step: Step) -> None:
    """Checkpointing changes nothing, clipping is by the norm of the whole step, and an adapter, or the layer that is not frozen, trains alone."""
    step.must_be_right()


@probe(
    [
        *factory(**ZERO, stage=(0, 1, 2, 3), windows=8),
        *factory(**ZERO, stage=(1, 2, 3), offload_optimizer="cpu", windows=8),
        *factory(**ZERO, stage=2, offload_optimizer="cpu", windows=(1, 2), world_size=(1, 2)),
        *factory(**ZERO, stage=(2, 3), objective=("dpo_sigmoid", "asft"), windows=4),
        *factory(**ZERO, stage=2, offload_optimizer="cpu", objective="dpo_sigmoid", windows=(1, 4)),
        *factory(**ZERO, stage=(2, 3), windows=2, world_size=2),
    ]
)
def test_deepspeed_changes_nothing(step: Step) -> None:
    """Under DeepSpeed, whatever its stage and wherever the optimizer lives, the step must be the same."""
    step.must_be_right()
