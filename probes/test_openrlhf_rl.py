"""OpenRLHF's actor and critic (``train_ppo_ray``) on experience that is given: every part of their losses, however it is cut."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

ACTOR = {"framework": "openrlhf", "model": "llama.lm", "batch": "prompted"}
CRITIC = {"framework": "openrlhf", "model": "llama.value", "batch": "prompted"}
PPO, VALUE = ("ppo", "ppo_sequence"), ("ppo_value", "ppo_value_sequence")  # token means from 0.7 on, completion means before

WHOLE = ("ppo_gae", "ppo_gae_centered", "ppo_reinforce", "ppo_reinforce_baseline")  # normalised over the rollout
GROUPS = ("ppo_rloo", "ppo_group_norm", "ppo_dr_grpo")


@probe(
    [
        *grid(**ACTOR, objective=PPO, windows=(1, 2, 4, 8)),
        *grid(**CRITIC, objective=VALUE, windows=(1, 2, 4, 8)),
        *grid(**ACTOR, objective=PPO, windows=[4, 4]),
        *grid(**CRITIC, objective=VALUE, windows=[4, 4]),
    ]
)
def test_the_split_changes_nothing(step: Step) -> None:
    """The gradient of actor and critic is that of the whole train batch, however it is cut into micro-batches."""
    step.must_be_right()


@probe(
    [
        *grid(**ACTOR, objective=("ppo_dual", "ppo_k1", "ppo_k2", "ppo_k3", "ppo_entropy", "dapo", "gspo"), windows=(1, 4)),
        *grid(**ACTOR, objective=("ppo_tis", "ppo_icepop", "ppo_mask_tis"), windows=(1, 4)),
    ]
)
def test_every_part_of_the_loss(step: Step) -> None:
    """Clipping, divergence, entropy and weights for who sampled enter the step as documented."""
    step.must_be_right()


@probe(
    [
        *grid(**ACTOR, objective=(*WHOLE, *GROUPS, "ppo_flash_reinforce", "ppo_overlong"), windows=4),
        *grid(**ACTOR, objective=(*WHOLE, "ppo_group_norm"), rollout=3),
        *grid(**ACTOR, objective=("ppo_gae", "ppo_rloo"), rollout=8, windows=4),
        *grid(**ACTOR, objective=("ppo_reinforce", "ppo_group_norm"), windows=4, batching="dynamic", stage=3),
        *grid(**ACTOR, objective=("ppo_gae", "ppo_reinforce_baseline", "ppo_rloo"), world_size=2, windows=(1, 4)),
        *grid(**CRITIC, objective="ppo_value_gae", windows=(1, 4)),
    ]
)
def test_advantages_of_rewards(step: Step) -> None:
    """Every estimator makes the advantages of its paper of a whole rollout, however that is cut and dealt out."""
    step.must_be_right()


@probe([*grid(**ACTOR, objective="ppo_gae_turns"), *grid(**CRITIC, objective="ppo_value_gae_turns")])
def test_advantages_over_several_turns(step: Step) -> None:
    """What the environment says between two turns is no action: the policy's next state follows on its last."""
    step.must_be_right()


@probe(
    [
        *grid(**ACTOR, objective=PPO, world_size=2, windows=(1, 4)),
        *grid(**CRITIC, objective=VALUE, world_size=2, windows=(1, 4)),
    ]
)
def test_ranks_share_the_step(step: Step) -> None:
    """Two ranks make the step that one makes of all samples."""
    step.must_be_right()


@probe(
    [
        *grid(**ACTOR, objective="ppo", batching="dynamic", stage=(0, 1, 2, 3), windows=(1, 4)),
        *grid(**ACTOR, objective="ppo", batching="dynamic", offload_optimizer="cpu", windows=4),
        *grid(**CRITIC, objective="ppo_value", batching="dynamic", windows=4),
    ]
)
def test_dynamic_batches(step: Step) -> None:
    """Micro-batches that are filled by tokens make the step of all samples, every one of them."""
    step.must_be_right()


@probe(
    [
        *grid(**ACTOR, objective=PPO, loss="logged", windows=(1, 4)),
        *grid(**ACTOR, objective=("ppo_k2", "ppo_entropy", "gspo"), loss="logged", windows=4),
        *grid(**CRITIC, objective=VALUE, loss="logged", windows=4),
    ]
)
def test_the_log_tells_the_loss(step: Step) -> None:
    """What the trainers report is the loss of the step."""
    step.must_be_right()


@probe([*grid(**ACTOR, objective=PPO, windows=4, stage=(0, 1, 3)), *grid(**ACTOR, objective=PPO, windows=4, clipping="tight")])
def test_the_engine_is_the_same(step: Step) -> None:
    """Partitioning and clipping are those that were asked for."""
    step.must_be_right()
