"""TRL's trainers that learn from completions: GRPO in its kinds, GMPO, RLOO. The completions are given, the step is TRL's."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

CLIPPED = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "vespo", "gspo", "luspo", "grpo_delta", "gmpo")
MODEL = {"framework": "trl", "model": "neox.lm"}


@probe(
    [
        *grid(**MODEL, objective=CLIPPED, windows=4),
        *grid(**MODEL, objective=("grpo", "dapo", "rloo_fresh"), windows=(1, 2, 8)),
        *grid(**MODEL, objective="dapo_fresh", windows=[4, 4, 4], optimizer=("sgd", "adam")),
    ]
)
def test_the_split_changes_nothing(step: Step) -> None:
    """The gradient of the surrogate is that of the whole batch, however it is cut into micro-batches."""
    step.must_be_right()


@probe(
    [
        *grid(**MODEL, objective=("grpo_kl", "dapo_kl_corrected", "luspo_kl", "grpo_temperature", "gmpo_kl"), windows=4),
        *grid(**MODEL, objective="rloo_kl", windows=(1, 4)),
        *grid(**MODEL, objective=("dapo_cut", "grpo_cut"), windows=4),
        *grid(**MODEL, objective="dapo_rewards", scale_rewards=("group", "none", "batch"), windows=4),
        *grid(framework="trl", model="mixtral.lm", objective=("grpo_router", "dapo_router"), windows=2),
    ]
)
def test_every_part_of_the_loss(step: Step) -> None:
    """Advantages, temperature, truncation, the divergence and the routers' loss enter the step as documented."""
    step.must_be_right()


@probe(
    [
        *grid(**MODEL, objective=("dapo", "grpo", "bnpo"), generation=("half", "double"), windows=[4, 4]),
        *grid(**MODEL, objective="gmpo", generation="double", windows=[4, 4]),
        *grid(**MODEL, objective="grpo", iterations=2, epochs=2, windows=[4, 4]),
    ]
)
def test_the_generation_batch_changes_nothing(step: Step) -> None:
    """How many samples are generated at a time, and how often they are used, must not change a step."""
    step.must_be_right()


@probe(grid("trl", model=("llama.lm", "gpt2.lm", "hunyuan.lm", "neox.lm+lora"), objective="dapo_fresh", windows=2))
def test_prompts_of_unequal_length(step: Step) -> None:
    """Padding prompts on the left must not change the log-probabilities of what follows."""
    step.must_be_right()


@probe(grid(**MODEL, objective=("grpo", "dapo", "bnpo", "rloo_kl"), world_size=2, windows=(1, 4)))
def test_ranks_share_the_step(step: Step) -> None:
    """Two ranks make the step that one makes of all samples."""
    step.must_be_right()
