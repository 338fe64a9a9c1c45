"""OpenRLHF through its command line: the driver, its advisories' cures and its scripts; and what the cures stand on, without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from truestep.fixtures import problem
from truestep.fixtures.cell import CellError, Split, deal, parse
from truestep.fixtures.drivers import driver_of
from truestep.patches.openrlhf._window import Ahead, Window
from truestep.reports import repro

SFT = "openrlhf-llama.lm-{}-objective:response_mean-batch:prompted"


@pytest.fixture
def needs_openrlhf(needs_deepspeed: None) -> None:
    if find_spec("openrlhf") is None:
        pytest.skip("openrlhf is not installed: .ci/environment says how")


class Loader:
    """Batches in the order of their epoch, as a distributed sampler deals them out."""

    def __init__(self, epochs: list[list[int]]) -> None:
        self.epochs, self.sampler = epochs, self
        self.epoch, self.consumed_indicies, self.num_replicas = 0, 0, 1

    def set_epoch(self, epoch: int, consumed_samples: int = 0) -> None:
        self.epoch, self.consumed_indicies = epoch, consumed_samples

    def __len__(self) -> int:
        return len(self.epochs[self.epoch])

    def __iter__(self) -> Iterator[int]:
        return iter(list(self.epochs[self.epoch]))


@settings(deadline=None, max_examples=300)  # a loaded machine is not a wrong weight
@example(k=5, length=1, counts=[1] * 36, epochs=3)  # a window over all epochs
@given(
    k=st.integers(1, 5),
    length=st.integers(1, 9),
    counts=st.lists(st.integers(1, 50), min_size=36, max_size=36),
    epochs=st.integers(1, 4),
)
def test_every_window_is_weighed_by_its_own_tokens(k: int, length: int, counts: list[int], epochs: int) -> None:
    """Whatever an epoch's length: micro-batch i of a window weighs n_i * K / N, N being the tokens of the same K micro-batches."""
    data = [counts[e * length : (e + 1) * length] for e in range(epochs)]
    loader = Loader(data)
    window = Window(k, 1, lambda total: total)
    ahead = Ahead(loader, window, float, lambda epoch: epoch >= epochs - 1)
    seen, weights = [], []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for count in ahead:
            seen.append(count)
            weights.append(window.weight())
        assert loader.epoch == epoch
    assert seen == [count for part in data for count in part]  # each batch once, in order
    whole = len(seen) // k * k  # what is left takes no step
    for begin in range(0, whole, k):
        step = seen[begin : begin + k]
        assert weights[begin : begin + k] == pytest.approx([n * k / sum(step) for n in step])


@settings(deadline=None)
@given(k=st.integers(1, 8), steps=st.integers(1, 6), epochs=st.integers(1, 4), ranks=st.integers(1, 2))
def test_windows_that_span_epochs_see_every_sample_as_often(k: int, steps: int, epochs: int, ranks: int) -> None:
    try:
        split = Split(ranks, (k,) * steps, size=1, epochs=epochs)
    except CellError:
        assert epochs > 1 and steps * k % epochs
        return
    cell = parse(SFT.format("W1-K1")).but(windows=(k,) * steps, size=1, epochs=epochs, world_size=ranks)
    assert cell.split == split
    seen: dict[tuple[float, ...], int] = {}
    for step in range(steps):
        batch = problem.batch(cell, step)
        rows = sorted(row for rank in deal(split, step) for part in rank for row in part)
        assert rows == list(range(len(batch.mask)))
        for row in rows:
            key = tuple(batch.inputs[row].tolist()), step if not split.spanning else 0
            seen[key] = seen.get(key, 0) + 1
    if split.spanning:
        assert sum(seen.values()) == steps * k * ranks
        assert len(seen) <= steps * k * ranks // epochs


def test_without_openrlhf_a_cell_is_skipped_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_of("openrlhf")

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(driver, "installed", missing)
    assert driver.version() is None
    assert "pip install --no-deps openrlhf" in driver.supports(parse(SFT.format("W1-K1")))
    with pytest.raises(CellError, match="there is none"):
        repro.script(parse(SFT.format("W1-K1")))


def test_there_is_no_script_for_an_objective_that_has_none() -> None:
    with pytest.raises(CellError, match="there is one for response_mean"):
        repro.script(parse("openrlhf-llama.lm-W1-K2-objective:turns"))


def test_the_command_line_takes_the_step_of_the_whole_window(needs_openrlhf: None, judged: Callable[..., dict[str, Any]]) -> None:
    """In a release without known bugs of the step, alone and on two ranks, over epochs, offloaded."""
    assert Version(version("openrlhf")) >= Version("0.11.2"), "this test is about a release that is right"
    right = ("W1-K1", "W1-K8", "W1-K4x3b4e2", "W2-K4", "W2-K4x3b2e2")
    ids = [SFT.format(split) for split in right]
    ids += [SFT.format("W1-K4") + "-stage:1", SFT.format("W1-K8") + "-offload_optimizer:cpu"]
    ids += ["openrlhf-llama.lm-W1-K4-objective:dpo_sigmoid", "openrlhf-llama.value-W1-K4-objective:reward"]
    verdicts = judged(ids)
    assert {i: (v.verdict, v.reason) for i, v in verdicts.items()} == dict.fromkeys(ids, ("pass", ""))


def test_what_is_logged_on_two_ranks_is_mended(needs_openrlhf: None, judged: Callable[..., dict[str, Any]]) -> None:
    cell = SFT.format("W2-K4") + "-loss:logged"
    before = judged([cell])[cell]
    assert (before.verdict, before.advisory) == ("wrong", "truestep-2026-73")
    after = judged([cell], patch=("truestep-2026-73",))[cell]
    assert after.verdict == "pass"
    assert any(text.startswith("applied truestep-2026-73") for text in after.patches)


def test_a_cell_that_is_right_can_be_weighed(judged: Callable[..., dict[str, Any]]) -> None:
    found = judged(["torch-mlp-W1-K4"], weigh=True, detail=True)["torch-mlp-W1-K4"]
    assert found.verdict == "pass"
    assert found.diagnosis.weights[0] == pytest.approx([1.0] * 4, abs=1e-4)
    assert found.diagnosis.samples == pytest.approx([1.0] * 16, abs=1e-4)
