"""Split, rank, offload, permutation and padding change nothing: on the oracle, on the plain trainer, on DeepSpeed.

Cells and batches are drawn by hypothesis; one that fails shrinks to the smallest that still does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from truestep.fixtures import models, objectives, oracle, strategies
from truestep.fixtures.batches import Batch
from truestep.fixtures.cell import Cell, CellError, parse
from truestep.fixtures.drivers import driver_of
from truestep.reports.hunt import hunt
from truestep.reports.verdict import Verdict

from truestep.suite import Suite

LANGUAGE = st.sampled_from(["mlp", "mlp_tied", "llama"])


def gradient(model: str, batch: Batch, weights: Tensor) -> oracle.Gradient:
    exact = models.exact(model, 0)
    start = models.initial(model, 0, torch.float32)
    return oracle.gradient(exact, start, lambda m: models.call(m, batch, weights, torch.float64))


def same(a: oracle.Gradient, b: oracle.Gradient) -> None:
    assert a.loss == pytest.approx(b.loss, rel=1e-11)
    for name, value in a.grads.items():
        torch.testing.assert_close(value, b.grads[name], rtol=1e-9, atol=1e-12)


# --- the oracle -------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.data(), LANGUAGE, st.sampled_from(["token_mean", "sequence_mean"]))
def test_the_oracle_does_not_care_how_a_batch_is_split(data: st.DataObject, model: str, objective: str) -> None:
    batch = data.draw(strategies.batches(language=models.is_language(model)))
    weights = objectives.weights_of(objective)(batch.mask)
    whole = gradient(model, batch, weights)
    parts = []
    for rows in data.draw(strategies.partitions(len(batch.mask))):
        part = batch.take(tuple(rows))
        parts.append(gradient(model, part, weights[rows, : part.mask.shape[1]]))
    same(whole, oracle.Gradient(sum(p.loss for p in parts), {n: sum(p.grads[n] for p in parts) for n in whole.grads}))  # type: ignore[misc]


@settings(max_examples=25, deadline=None)
@given(st.data(), LANGUAGE)
def test_the_oracle_does_not_care_about_order_and_padding(data: st.DataObject, model: str) -> None:
    batch = data.draw(strategies.batches(language=models.is_language(model)))
    weights = objectives.weights_of("token_mean")(batch.mask)
    order = list(data.draw(st.permutations(range(len(batch.mask)))))
    more = data.draw(st.integers(1, 4))

    def wider(t: Tensor) -> Tensor:
        return torch.cat([t[order], torch.zeros_like(t[order][:, :1]).repeat_interleave(more, 1)], 1)

    moved = replace(
        batch, inputs=wider(batch.inputs), targets=wider(batch.targets), mask=wider(batch.mask), flags=batch.flags[order]
    )
    same(gradient(model, batch, weights), gradient(model, moved, objectives.weights_of("token_mean")(moved.mask)))


@settings(max_examples=50, deadline=None)
@given(strategies.masks())
def test_objectives_sum_to_one_and_leave_out_what_is_not_trained(mask: Tensor) -> None:
    for name in ("token_mean", "sequence_mean"):
        weights = objectives.weights_of(name)(mask)
        assert float(weights.sum()) == pytest.approx(1.0) and not bool(weights[~mask].any())


# --- cells --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(strategies.cells("deepspeed"))
def test_drawn_cells_are_possible_and_can_be_written_down(cell: Cell) -> None:
    assert driver_of("deepspeed").possible(cell)
    assert parse(cell.id) == cell == Cell.from_json(cell.to_json())


def test_pinned_knobs_stay_and_impossible_ones_are_refused() -> None:
    cell = strategies.repaired(
        "deepspeed", {"stage": "0", "offload_optimizer": "cpu", "windows": (2,)}, {"offload_optimizer": "cpu"}
    )
    assert cell.knob("offload_optimizer") == "cpu" and cell.knob("stage") != "0"
    with pytest.raises(ValueError, match="offers no cell"):
        strategies.repaired("deepspeed", {"stage": "0", "offload_optimizer": "cpu"}, {"stage": "0", "offload_optimizer": "cpu"})


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    one = Suite(confirm=False)
    yield one
    one.close()


# the same cells in every run: `truestep hunt` is for new ones
DRAWN = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@DRAWN
@given(strategies.cells("torch"))
def test_whatever_is_drawn_the_plain_trainer_is_right(suite: Suite, cell: Cell) -> None:
    verdict = suite.verdict(cell)
    assert verdict.verdict in ("pass", "not-triggered"), f"{cell.id}: {verdict.reason} {verdict.diagnosis}"


@DRAWN
@given(strategies.cells("deepspeed"))
def test_whatever_is_drawn_deepspeed_is_right_or_wrong_in_a_known_way(suite: Suite, needs_deepspeed: None, cell: Cell) -> None:
    verdict = suite.verdict(cell)
    known = verdict.advisory and not verdict.besides
    assert verdict.verdict not in ("wrong", "error", "timeout") or known, f"{cell.id}: {verdict.reason} {verdict.diagnosis}"


@pytest.mark.parametrize("framework", ["torch", "deepspeed"])
@pytest.mark.parametrize(
    "change",
    [
        {"windows": 1}, {"windows": 8}, {"windows": 3, "uneven": True}, {"world_size": 2}, {"batch": "padded"}, {"batch": "shuffled"},
    ],
    ids=str,
)  # fmt: skip
def test_the_same_batch_makes_the_same_step(suite: Suite, framework: str, change: dict[str, Any]) -> None:
    """Against itself: the same samples dealt out, ordered or padded in another way; both must meet one oracle."""
    if driver_of(framework).version() is None:
        pytest.skip(f"{framework} is not installed: see README, tests")
    base = Cell.make(framework, windows=4)
    for cell in (base, base.but(**change)):
        verdict = suite.verdict(cell)
        assert verdict.verdict == "pass", f"{cell.id}: {verdict.reason}"
    same(*(_expected(c) for c in (base, base.but(**change))))


def _expected(cell: Cell) -> oracle.Gradient:
    from truestep.reports import compare

    found = compare.truth(cell, 0, models.initial(cell.model, cell.seed, torch.float32))
    return oracle.Gradient(found.loss, dict(found.grads))


# --- the hunt -----------------------------------------------------------------------------------------------


def broken(cell: Cell) -> Verdict:
    """A framework that goes wrong with more than two micro-batches under tight clipping."""
    wrong = max(cell.split.windows) > 2 and cell.knob("clipping") == "tight"
    return Verdict(cell=cell.to_json(), id=cell.id, verdict="wrong" if wrong else "pass")


def test_a_failing_cell_shrinks_to_the_smallest_and_is_replayed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"examples": 400, "database": tmp_path / "examples", "known": False, "fixed": {}}
    found = hunt("torch", broken, seed=None, **options)
    assert found.smallest is not None and found.smallest.id == "torch-mlp-W1-K3-clipping:tight"
    tried: list[str] = []

    def watched(cell: Cell) -> Verdict:
        tried.append(cell.id)
        return broken(cell)

    again = hunt("torch", watched, seed=None, **options)
    assert tried[0] == found.smallest.id, "the failing example is replayed first"
    assert again.smallest is not None and again.smallest.id == found.smallest.id
    assert hunt("torch", lambda c: replace(broken(c), verdict="pass"), seed=None, **options).smallest is None


def test_a_hunt_draws_the_same_cells_for_the_same_seed() -> None:
    seen: list[list[str]] = []
    for _ in range(2):
        ids: list[str] = []

        def look(cell: Cell, ids: list[str] = ids) -> Verdict:
            ids.append(cell.id)
            return Verdict(cell=cell.to_json(), id=cell.id, verdict="pass")

        hunt("torch", look, examples=30, seed=5, database=None, known=False, fixed={"model": "mlp"})
        seen.append(ids)
    assert seen[0] == seen[1] and len(seen[0]) > 10 and all("-mlp-" in i for i in seen[0])


def test_a_hunt_for_what_cannot_be_is_refused() -> None:
    with pytest.raises(CellError, match="offers no cell"):
        hunt(
            "deepspeed",
            broken,
            examples=5,
            seed=1,
            database=None,
            known=False,
            fixed={"stage": "0", "offload_optimizer": "cpu"},
        )
