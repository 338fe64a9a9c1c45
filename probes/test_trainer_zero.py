"""DeepSpeed under transformers' Trainer: stage and offload change nothing, as without it."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    [
        *grid("transformers", model="llama.lm", engine="deepspeed", stage=(0, 1, 2), windows=(1, 4, (4, 4, 4))),
        *grid("transformers", model="llama.lm", engine="deepspeed", stage=(1, 2), offload_optimizer="cpu", windows=(2, 4, 8)),
        *grid("transformers", model="llama.lm", engine="deepspeed", stage=3, windows=4, offload_optimizer=("none", "cpu")),
        *grid("transformers", model="llama.lm", engine="deepspeed", stage=(1, 2), windows=4, world_size=2),
        *grid("transformers", model="bert.class", engine="deepspeed", stage=2, windows=(1, 4)),
        *grid("transformers", model="llama.lm", engine="deepspeed", average_tokens="false", stage=(0, 2), windows=4),
    ]
)
def test_zero_under_the_trainer_changes_nothing(step: Step) -> None:
    """ZeRO and offload under the Trainer must not change the step."""
    step.must_be_right()


@probe(grid("transformers", model="llama.lm", engine="deepspeed", stage=(0, 2), clipping=("tight", "loose", "unset"), windows=4))
def test_the_trainer_hands_its_clipping_on(step: Step) -> None:
    """max_grad_norm must reach DeepSpeed, and the norm that the Trainer logs must be the right one."""
    step.must_be_right()
