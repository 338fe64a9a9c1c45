"""The oracle against finite differences, cases worked out by hand, and a plain float32 loop."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from truestep.fixtures import batches, models, objectives, oracle, reference
from truestep.fixtures.cell import MODELS, Cell
from truestep.reports import compare

SMALL = [m for m in MODELS if m.startswith("mlp")]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("objective", ["token_mean", "sequence_mean"])
def test_gradient_agrees_with_finite_differences(name: str, objective: str) -> None:
    model = models.exact(name, seed=3)
    batch = batches.make("ragged", name, 3, 0)
    share = objectives.weights_of(objective)(batch.mask)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    values = [p.detach().clone().requires_grad_() for p in model.parameters() if p.requires_grad]

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, parameters, strict=True))
        if name == "mlp_tied":  # one Parameter under two names
            given["net.second_middle.weight"] = given["net.middle.weight"]
        return torch.func.functional_call(model, given, (batch.inputs, batch.targets, share, batch.flags))

    assert torch.autograd.gradcheck(loss, values)
    weights = dict(zip(names, (v.detach() for v in values), strict=True))
    found = oracle.gradient(model, weights, lambda m: models.call(m, batch, share, torch.float64))
    wanted = torch.autograd.grad(loss(*values), values)
    for n, w in zip(names, wanted, strict=True):
        torch.testing.assert_close(found.grads[n], w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_language_models_agree_with_a_directional_finite_difference(name: str) -> None:
    pytest.importorskip("transformers")
    model, batch = models.exact(name, 1), batches.make("ragged", name, 1, 0)
    share = objectives.weights_of("token_mean")(batch.mask)
    at = {n: p.detach().clone() for n, p in model.named_parameters()}
    random = torch.Generator().manual_seed(0)
    way = {n: torch.randn(p.shape, generator=random, dtype=torch.float64) for n, p in at.items()}
    way = {n: w / oracle.norm(way) for n, w in way.items()}

    def value(h: float) -> float:
        moved = {n: at[n] + h * way[n] for n in at}
        return oracle.gradient(model, moved, lambda m: models.call(m, batch, share, torch.float64)).loss

    grads = oracle.gradient(model, at, lambda m: models.call(m, batch, share, torch.float64)).grads
    slope = sum(float((grads[n] * way[n]).sum()) for n in at)
    h = 1e-4
    assert (value(h) - value(-h)) / (2 * h) == pytest.approx(slope, rel=1e-6)


def test_a_loss_that_is_not_float64_is_refused() -> None:
    model = models.build("mlp", 0)
    batch = batches.make("ragged", "mlp", 0, 0)
    share = objectives.weights_of("token_mean")(batch.mask)
    with pytest.raises(TypeError, match="float64"):
        oracle.gradient(model, {}, lambda m: models.call(m, batch, share.float(), torch.float32))


def test_by_hand_token_mean_and_sequence_mean() -> None:
    # Token probabilities (.5, .25) and (.8): means of -log p over tokens, and over sequences.
    losses = -torch.tensor([[0.5, 0.25], [0.8, 1.0]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, False]])
    token = (objectives.weights_of("token_mean")(mask) * losses).sum()
    sequence = (objectives.weights_of("sequence_mean")(mask) * losses).sum()
    assert float(token) == pytest.approx((math.log(2) + math.log(4) + math.log(1.25)) / 3, abs=1e-15)
    assert float(sequence) == pytest.approx(((math.log(2) + math.log(4)) / 2 + math.log(1.25)) / 2, abs=1e-15)


def test_by_hand_a_linear_model() -> None:
    # y = a x with a = 2, samples (1, 1) and (2, 3): L = ((2 - 1)^2 + (4 - 3)^2) / 2, dL/da = (2 * 1 + 2 * 2) / 2 = 3
    layer = torch.nn.Linear(1, 1, bias=False).double()
    x, y = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    found = oracle.gradient(layer, {"weight": torch.tensor([[2.0]])}, lambda m: (m(x) - y).square().mean())
    assert found.loss == 1.0
    assert found.grads["weight"].item() == 3.0


def test_by_hand_clipping_momentum_and_adam() -> None:
    g = {"w": torch.tensor([3.0, 4.0], dtype=torch.float64)}
    assert oracle.norm(g) == 5.0
    assert oracle.clip(g, 10.0)["w"].tolist() == [3.0, 4.0]
    assert oracle.clip(g, None)["w"].tolist() == [3.0, 4.0]
    assert oracle.clip(g, 1.0)["w"].tolist() == pytest.approx([0.6, 0.8], rel=1e-6)
    w = {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}
    b = {"w": torch.tensor([2.0, 0.0], dtype=torch.float64)}
    after, buffer = oracle.momentum_sgd(w, g, b, lr=0.5, momentum=0.5)
    assert buffer["w"].tolist() == [4.0, 4.0]
    assert after["w"].tolist() == [-1.0, -1.0]
    zero = {"w": torch.zeros(2, dtype=torch.float64)}
    # first step of Adam: each weight moves by lr * sign(g) (eps aside), after decay by lr * wd
    new, m, v = oracle.adamw(w, g, zero, zero, 1, lr=0.1, betas=(0.9, 0.99), eps=0.0, weight_decay={"w": 0.5})
    assert new["w"].tolist() == pytest.approx([1 - 0.05 - 0.1] * 2)
    assert m["w"].tolist() == pytest.approx([0.3, 0.4])
    assert v["w"].tolist() == pytest.approx([0.09, 0.16])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 50), steps=st.integers(1, 4))
def test_optimizers_agree_with_torch(seed: int, steps: int) -> None:
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(7, generator=random, dtype=torch.float64)
    for kind in ("sgd", "adam"):
        p = start.clone().requires_grad_()
        theirs: torch.optim.Optimizer
        if kind == "sgd":
            theirs = torch.optim.SGD([p], lr=0.1, momentum=0.5)
        else:
            theirs = torch.optim.AdamW([p], lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)
        w, m, v = {"w": start}, {"w": torch.zeros_like(start)}, {"w": torch.zeros_like(start)}
        for step in range(steps):
            g = torch.randn(7, generator=random, dtype=torch.float64)
            p.grad = g.clone()
            theirs.step()
            if kind == "sgd":
                w, m = oracle.momentum_sgd(w, {"w": g}, m, lr=0.1, momentum=0.5)
            else:
                w, m, v = oracle.adamw(w, {"w": g}, m, v, step + 1, lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay={"w": 0.1})
        torch.testing.assert_close(w["w"], p.detach(), rtol=1e-12, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    model=st.sampled_from(SMALL),
    ranks=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 4),
    uneven=st.booleans(),
    objective=st.sampled_from(["token_mean", "sequence_mean"]),
    kind=st.sampled_from(["ragged", "equal"]),
    seed=st.integers(0, 20),
)
def test_a_plain_float32_loop_agrees_whatever_the_split(
    model: str, ranks: int, window: int, uneven: bool, objective: str, kind: str, seed: int
) -> None:
    cell = Cell.make(
        "deepspeed", model, windows=window, world_size=ranks, uneven=uneven, objective=objective, batch=kind, seed=seed
    )
    weights = {n: p.detach().double() for n, p in models.build(model, seed).named_parameters()}
    wanted = compare.truth(cell, 0, weights).grads
    micro = reference.micro_gradients(cell, 0, weights, torch.float32)
    plain = reference.rounded_sum(micro, torch.float32, range(window))
    error, where = compare.distance(plain, wanted)
    assert error < 2e-6, where
    exact = reference.exact_sum(reference.micro_gradients(cell, 0, weights, torch.float64))
    assert compare.distance(exact, wanted)[0] < 1e-12


def test_every_sample_is_dealt_once_and_splits_are_as_asked() -> None:
    for ranks in (1, 2):
        for window in (1, 2, 3, 4, 8):
            for uneven in (False, True):
                split = Cell.make("deepspeed", windows=window, world_size=ranks, uneven=uneven).split
                dealt = batches.deal(split, 0)
                assert len(dealt) == ranks
                assert all(len(rank) == window for rank in dealt)
                assert sorted(i for rank in dealt for rows in rank for i in rows) == list(range(16))
                assert all(rows for rank in dealt for rows in rank)


@pytest.mark.parametrize("name", MODELS)
def test_batches_and_models_are_deterministic_and_micro_batches_differ(name: str) -> None:
    if name in ("llama", "qwen2"):
        pytest.importorskip("transformers")
    first, second = models.build(name, 5), models.build(name, 5)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    cell = Cell.make("deepspeed", name, windows=8, seed=5)
    weights = {n: p.detach().double() for n, p in first.named_parameters()}
    columns = [
        torch.cat([g.flatten() for g in m.values()]) for m in reference.micro_gradients(cell, 0, weights, torch.float64)[0]
    ]
    matrix = torch.stack([c / c.norm() for c in columns], 1)
    assert float(torch.linalg.cond(matrix)) < 50, "micro-batch gradients must be independent, or weights mean nothing"


def logged(name: str, off: float) -> bool:
    """Whether the loss check accuses that objective's step of a loss that is ``off`` from the right one."""
    cell = Cell.make("trl", "neox.lm", windows=4, objective=name)
    weights = models.initial("neox.lm", 0, torch.float32)
    right = compare.truth(cell, 0, weights)
    bound = compare.bounds(compare.noise_at(cell, 0, weights), right.grads)[compare.WHOLE]
    trace: Any = SimpleNamespace(step=0, loss=right.loss + off, loss_error=0.0, weights_before=weights)
    wanted: Any = SimpleNamespace(loss=right.loss, loss_bound=bound, noise={compare.WHOLE: bound / compare.MARGIN})
    return compare._loss(cell, trace, wanted).red


def test_a_loss_of_both_signs_is_held_against_what_it_is_the_sum_of() -> None:
    """Advantages cancel: rounding is that of the parts, and an error of a hundred-thousandth of them is still seen."""
    for name in ("rloo_kl", "grpo", "dapo_fresh", "gmpo"):
        cell = Cell.make("trl", "neox.lm", windows=4, objective=name)
        parts = compare.unsigned(cell, 0, models.initial("neox.lm", 0, torch.float32))
        assert not logged(name, 2.0**-24 * parts) and not logged(name, -(2.0**-23) * parts)
        assert logged(name, 1e-5 * parts) and logged(name, -1e-5 * parts)


def test_a_loss_of_one_sign_is_its_own_scale() -> None:
    cell = Cell.make("trl", "neox.lm", windows=4)
    weights = models.initial("neox.lm", 0, torch.float32)
    right = compare.truth(cell, 0, weights).loss
    assert compare.unsigned(cell, 0, weights) == pytest.approx(right, rel=1e-12)
    assert logged("token_mean", 1e-5 * right) and not logged("token_mean", 1e-7 * right)
