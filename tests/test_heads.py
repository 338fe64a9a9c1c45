"""The heads of transformers: their oracle is exact, does not care how a batch is cut or padded, and can tell micro-batches apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from truestep.fixtures import batches, models, oracle, problem, reference
from truestep.fixtures.cell import Cell, Split
from truestep.fixtures.heads import HEADS, TASKS
from truestep.reports import compare, judge

pytest.importorskip("transformers")

#: one or two of every task and of every way of building a model: rotary, sliding, relative and learned positions,
#: recurrences, experts, tied and shared layers, a decoder of its own
SAMPLE = (
    "llama.lm", "gemma2.lm", "gpt2.lm", "bloom.lm", "mamba.lm", "mixtral.lm", "deepseek_v3.lm",
    "bert.mlm", "modernbert.mlm", "deberta_v2.tokens", "convbert.tokens", "albert.class", "bart.class", "llama.value",
    "electra.labels", "roberta.choice", "distilbert.span", "t5.seq2seq", "marian.seq2seq", "bart.seq2seq",
)  # fmt: skip
STEP = 0


def cell(name: str, batch: str = "ragged", windows: int = 4) -> Cell:
    return Cell("torch", name, Split(1, (windows,)), (("dtype", "fp32"),), "token_mean", batch)


def start(name: str) -> Any:
    try:
        return models.initial(name, 0, torch.float32)
    except ImportError as error:
        pytest.skip(str(error))


def test_the_sample_has_every_task_and_every_head_a_task_that_is_known() -> None:
    assert {HEADS[n].task for n in SAMPLE} == set(TASKS) == {h.task for h in HEADS.values()}
    assert all(name == head.name == f"{name.split('.')[0]}.{head.task}" for name, head in HEADS.items())


@pytest.mark.parametrize("name", SAMPLE)
def test_the_oracle_does_not_care_how_the_batch_is_cut(name: str) -> None:
    weights = start(name)
    whole = compare.truth(cell(name), STEP, weights).grads
    for windows in (4, 16):
        micro = reference.micro_gradients(cell(name, windows=windows), STEP, weights, torch.float64)
        assert compare.distance(reference.exact_sum(micro), whole)[0] < 1e-12


@pytest.mark.parametrize("name", SAMPLE)
def test_the_gradient_agrees_with_a_finite_difference(name: str) -> None:
    """Central differences of fourth order in a random direction; a float32 anywhere inside would leave 1e-4."""
    weights = start(name)
    right = compare.truth(cell(name), STEP, weights).grads
    random = torch.Generator().manual_seed(0)
    way = {n: torch.randn(g.shape, generator=random, dtype=torch.float64) for n, g in right.items()}
    way = {n: w / oracle.norm(way) for n, w in way.items()}

    def value(h: float) -> float:
        return compare.truth(cell(name), STEP, {n: weights[n] + h * way[n] for n in way}).loss

    h = 1e-4
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert slope == pytest.approx(sum(float((right[n] * way[n]).sum()) for n in way), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", [n for n in SAMPLE if HEADS[n].task != "span" and not HEADS[n].even])
def test_padding_changes_nothing(name: str) -> None:
    """A span is looked for in the padding too, and what an ``even`` head computes depends on it: those are left out."""
    weights = start(name)
    plain, wider = (compare.truth(cell(name, batch), STEP, weights) for batch in ("ragged", "padded"))
    assert problem.batch(cell(name, "padded"), STEP).inputs.shape[-1] > problem.batch(cell(name), STEP).inputs.shape[-1]
    assert compare.distance(wider.grads, plain.grads)[0] < 1e-12


@pytest.mark.parametrize("name", SAMPLE)
def test_micro_batches_can_be_told_apart_and_an_error_be_seen(name: str) -> None:
    weights = start(name)
    micro = reference.micro_gradients(cell(name), STEP, weights, torch.float64)
    least, alike = reference.apart(micro)
    assert least > 0.01 and alike < 0.99
    noise = compare.noise_at(cell(name), STEP, weights)
    assert 0.0 < noise[""] < 3e-6
    widest = compare.bounds(noise, compare.truth(cell(name), STEP, weights).grads)
    assert widest[""] < 1e-5 / 3


def test_proportional_and_missing_gradients_are_noticed() -> None:
    a, b, none = ({"w": torch.tensor(v, dtype=torch.float64)} for v in ([3.0, 4.0], [-6.0, -8.0], [0.0, 0.0]))
    assert reference.apart([[a, b]]) == pytest.approx((1.0, 1.0))
    assert reference.apart([[a], [none]]) == pytest.approx((0.0, 0.0))
    assert reference.apart([[a, {"w": torch.tensor([4.0, -3.0], dtype=torch.float64)}]])[1] == pytest.approx(0.0)
    assert judge.ALIKE < 1.0 and judge.NOTHING > 0.0


@pytest.mark.parametrize("name", ["bart.class", "t5.class"])
def test_a_sequence_of_a_closed_head_ends_with_the_one_end_token(name: str) -> None:
    batch = batches.make("ragged", name, 0, 0)
    ends = batch.inputs == 1
    assert torch.equal(ends.sum(1), torch.ones(len(ends), dtype=torch.int64))
    assert torch.equal(ends.int().argmax(1) + 1, batch.extra["attention"].sum(1))
