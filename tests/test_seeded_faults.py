"""Every check must be able to fail: for each probe, a fault put into the real DeepSpeed turns it red.

Each case names cells of the probe that are right without the fault; the same cells must be ``wrong`` with it,
repeated in a fresh process, with the right words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import truestep.probes

CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    # fault -> (probe, cells, a word that the diagnosis must have, or the check that must be red)
    "offload_drops_the_second_micro_batch": (
        "offload",
        ("deepspeed-mlp-W1-K4-stage:1-offload_optimizer:cpu", "deepspeed-mlp-W1-K3-stage:3-offload_optimizer:cpu"),
        "dropped",
    ),
    "parameters_on_the_cpu_lose_precision": ("offload", ("deepspeed-mlp-W1-K2-stage:3-offload_param:cpu",), "scaled"),
    "never_divided_by_accumulation_steps": ("split", ("deepspeed-mlp-W1-K4-stage:1", "deepspeed-mlp-W1-K8-stage:2"), "scaled"),
    "gradients_are_not_reduced": ("ranks", ("deepspeed-mlp-W2-K2", "deepspeed-mlp-W2-K1"), "unreduced"),
    "only_the_last_backward_counts": (
        "backwards",
        ("deepspeed-mlp-W1-K3-stage:1-accumulate:boundary", "deepspeed-mlp-W1-K2-accumulate:boundary"),
        "dropped",
    ),
    "backward_scales_twice": ("backwards", ("deepspeed-mlp-W1-K4-stage:2-returns:output",), "scaled"),
    "clips_at_twice_the_limit": (
        "clipping",
        ("deepspeed-mlp-W1-K4-clipping:tight", "deepspeed-mlp-W1-K1-stage:1-clipping:tight"),
        "scaled",
    ),
    "norm_is_reported_too_large": ("clipping", ("deepspeed-mlp-W1-K4-stage:1-clipping:loose",), "norm"),
    "clips_at_a_half_unasked": ("defaults", ("deepspeed-mlp-W1-K4-stage:1-clipping:unset",), "scaled"),
    "momentum_fades_between_steps": (
        "state",
        # in the last, a documented choice (clipping to 1 where nobody named it) must not hide the fault
        ("deepspeed-mlp-W1-K2x3-stage:1", "deepspeed-mlp-W1-K2x3", "deepspeed-mlp-W1-K4x3-stage:1-clipping:unset"),
        "stale",
    ),
    "learning_rate_is_doubled": ("state", ("deepspeed-mlp-W1-K2x3-stage:1", "deepspeed-mlp-W1-K2-stage:2"), "lr"),
    "loading_leaves_the_module_alone": ("checkpoint", ("deepspeed-mlp-W1-K2x3-stage:1-checkpoint:reload",), "reload"),
    "loading_forgets_the_optimizer": ("checkpoint", ("deepspeed-mlp-W1-K2x3-stage:1-checkpoint:reload",), "stale"),
    "reading_returns_twice_the_gradient": ("readings", ("deepspeed-mlp-W1-K4-stage:1-read:grad",), "reading"),
    "everything_is_one_percent_off": (
        "precision",
        ("deepspeed-mlp-W1-K4-stage:1-dtype:bf16", "deepspeed-mlp-W1-K8-stage:2-dtype:bf16"),
        "scaled",
    ),
    "one_weight_is_off_by_a_hundred_thousandth": ("any", ("deepspeed-mlp-W1-K4", "deepspeed-llama-W1-K2"), "gradient"),
}


@pytest.mark.parametrize("fault", CASES)
def test_a_seeded_fault_turns_the_probe_red(fault: str, judged: Callable[..., dict[str, Any]]) -> None:
    _, cells, word = CASES[fault]
    clean, broken = judged(list(cells)), judged(list(cells), setup=[f"faults:{fault}"])
    for name, verdict in clean.items():
        # the default of gradient_clipping has changed: there the clean verdict is a documented choice
        assert verdict.verdict in ("pass", "by-design"), f"{name} is not clean: {verdict.reason}"
    for name, verdict in broken.items():
        assert verdict.verdict == "wrong", f"{fault} was not seen in {name}: {verdict.verdict} {verdict.reason}"
        assert verdict.repeated
        kinds = verdict.diagnosis.kinds if verdict.diagnosis else ()
        reds = [c.name.split()[0] for c in verdict.checks if c.red]
        assert word in (*kinds, *reds), f"{name}: {kinds} {reds} {verdict.diagnosis}"


def test_every_probe_module_has_a_seeded_fault() -> None:
    from pathlib import Path

    modules = {p.stem.removeprefix("test_") for p in Path(truestep.probes.__file__).parent.glob("test_*.py")}
    assert modules == {probe for probe, *_ in CASES.values()}


def test_weights_say_which_micro_batches_were_dropped(judged: Callable[..., dict[str, Any]]) -> None:
    name = "deepspeed-mlp-W1-K4-stage:1-offload_optimizer:cpu"
    verdict = judged([name], setup=["faults:offload_drops_the_second_micro_batch"])[name]
    assert verdict.diagnosis.words == "micro-batch 2 of 4 has weight 0"
    assert verdict.diagnosis.weights[0] == pytest.approx((1, 0, 1, 1), abs=1e-4)
