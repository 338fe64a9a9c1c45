"""DeepSpeed under TRL's trainers: stage and offload change nothing, as without it."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

ZERO = {"framework": "trl", "engine": "deepspeed"}


@probe(
    [
        *grid(**ZERO, model="llama.lm", stage=(0, 2), windows=4),
        *grid(**ZERO, model="llama.lm", stage=(1, 2, 3), offload_optimizer="cpu", windows=8),
        *grid(**ZERO, model="llama.lm", stage=2, offload_optimizer="cpu", windows=4, objective=("dpo_sigmoid", "dft", "kto_apo")),
        *grid(**ZERO, model="neox.lm", stage=2, offload_optimizer="cpu", windows=4, objective=("grpo", "gkd")),
        *grid(**ZERO, model="llama.lm", stage=(1, 2), windows=4, world_size=2),
        *grid(**ZERO, model="neox.lm", stage=2, windows=4, world_size=2, objective="grpo"),
        *grid(**ZERO, model="llama.value", stage=2, offload_optimizer="cpu", windows=4, objective="reward"),
        *grid(**ZERO, model="llama.lm+lora", stage=2, offload_optimizer="cpu", windows=4),
    ]
)
def test_zero_under_trl_changes_nothing(step: Step) -> None:
    """ZeRO and offload under a trainer of TRL must not change the step."""
    step.must_be_right()
