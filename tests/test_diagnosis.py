"""What was done wrong, in words: weights of micro-batches, samples and tokens, on the plain trainer with drawn faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from truestep.fixtures import models
from truestep.fixtures.cell import parse
from truestep.fixtures.drivers import Place
from truestep.fixtures.drivers import torch as driver
from truestep.fixtures.faults import drawn, plain, seeded
from truestep.reports import compare, effective
from truestep.reports.judge import judge
from truestep.reports.verdict import Verdict

Judged = Callable[..., Verdict]


@pytest.fixture(scope="module")
def verdict_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """``verdict_of(id, *faults, detail=...)`` in this process."""
    folder = tmp_path_factory.mktemp("plain")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    driver.load()
    driver.start(Place(0, 1, "cpu", folder / "store", folder))

    def run(text: str, *faults: AbstractContextManager[None], detail: bool = False) -> Verdict:
        cell = parse(text)
        with ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault)
            traces = driver.run(cell)
        return judge(cell, traces, driver, detail)

    yield run
    torch.set_num_threads(threads)


def weighted(values: list[float]) -> AbstractContextManager[None]:
    return plain._scaled(lambda self, k, window: values[k])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.sampled_from(["mlp", "mlp_tied"]), st.integers(0, 20))
def test_any_weights_are_read_back(verdict_of: Judged, values: list[float], model: str, seed: int) -> None:
    assume(max(abs(v - 1) for v in values) > 1e-3 and max(abs(v) for v in values) > 0.1)
    found = verdict_of(f"torch-{model}-W1-K4" + (f"-seed:{seed}" if seed else ""), weighted(values)).diagnosis
    assert found is not None and found.unit == "micro-batch"
    assert found.weights[0] == pytest.approx(values, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(found.weights[0], values, strict=True)) < 3 * found.doubt + 1e-6


@pytest.mark.parametrize("window", [4, 8])
@pytest.mark.parametrize(("dtype", "close"), [("fp32", 1e-4), ("bf16", 5e-3)])
def test_the_founding_bug_is_told_with_its_weights(verdict_of: Judged, window: int, dtype: str, close: float) -> None:
    suffix = "" if dtype == "fp32" else f"-dtype:{dtype}"
    found = verdict_of(f"torch-mlp-W1-K{window}{suffix}", plain.only_first_and_last_micro_batch_count()).diagnosis
    assert found is not None
    gone = "2 and 3" if window == 4 else f"2 to {window - 1}"
    assert found.words == f"micro-batches {gone} of {window} have weight 0"
    assert found.weights[0] == pytest.approx([1] + [0] * (window - 2) + [1], abs=close)
    assert found.sure == "certain"


def test_both_bugs_of_the_founding_paper_are_told_apart(verdict_of: Judged) -> None:
    found = verdict_of("torch-llama-W1-K4", plain.mean_of_means(), plain._without(lambda window: 1)).diagnosis
    assert found is not None and set(found.kinds) == {"re-weighted", "dropped"}
    assert "a mean of means" in found.words and "micro-batch 2 of 4 has weight 0" in found.words


def test_two_drops_a_scale_and_a_stale_gradient(verdict_of: Judged) -> None:
    found = verdict_of(
        "torch-mlp-W1-K4x2", plain.gradient_is_not_zeroed(), plain._without(lambda window: 0), plain.never_divided()
    ).diagnosis
    assert found is not None and {"dropped", "scaled", "stale"} <= set(found.kinds), found


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, 15), min_size=1, max_size=8))
def test_lost_samples_are_named_one_by_one(verdict_of: Judged, lost: set[int]) -> None:
    def change(batch: Any, w: Any) -> Any:
        kept = w.clone()
        kept[sorted(lost)] = 0
        return kept

    found = verdict_of("torch-llama-W1-K1", plain._weighing(change)).diagnosis
    assert found is not None and found.kinds == ("dropped",)
    assert found.samples == pytest.approx([0.0 if i in lost else 1.0 for i in range(16)], abs=1e-4)


def test_tokens_are_shown_where_they_are_asked_for(verdict_of: Judged) -> None:
    found = verdict_of("torch-llama-W1-K4", plain.prompt_is_trained(), detail=True).diagnosis
    assert found is not None and found.unit == "position"
    from truestep.fixtures import batches

    mask = batches.make("ragged", "llama", 0, 0).mask
    full = mask.flip(1).cumsum(1).flip(1) > 0
    expected = full * (float(mask.sum()) / float(full.sum()))
    seen = torch.tensor(found.tokens, dtype=torch.float64)
    assert torch.allclose(seen, expected.double(), atol=1e-4)


def test_gradients_too_alike_are_not_told_apart() -> None:
    random = torch.Generator().manual_seed(0)
    one = torch.randn(60, generator=random, dtype=torch.float64)
    columns = torch.stack([one, one + 1e-9 * torch.randn(60, generator=random, dtype=torch.float64)])
    gradient = 0.5 * columns[0] + 1.5 * columns[1] + 1e-7 * torch.randn(60, generator=random, dtype=torch.float64)
    fit = effective.fit(gradient, columns)
    assert fit is not None and float(fit.doubt.max()) > effective.TOO_ALIKE


def test_too_few_numbers_for_the_weights() -> None:
    assert effective.fit(torch.ones(10, dtype=torch.float64), torch.eye(10, dtype=torch.float64)) is None


def test_noise_is_left_alone_and_nothing_is_diagnosed_for_it(verdict_of: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effective, "columns", lambda *a, **k: pytest.fail("a cell that passes is not diagnosed"))
    assert verdict_of("torch-llama-W1-K8").verdict == "pass"


@pytest.mark.parametrize("model", ["mlp", "mlp_unused", "llama", "qwen2"])
@pytest.mark.parametrize(("dtype", "size"), [("fp32", 1e-5), ("bf16", 1e-2)])
@pytest.mark.parametrize("shape", ["everything", "one_parameter"])
def test_the_smallest_error_that_must_be_caught_is(verdict_of: Judged, model: str, dtype: str, size: float, shape: str) -> None:
    """In the whole gradient, and in each parameter by itself: caught, or the cell says that it cannot tell."""
    text = f"torch-{model}-W1-K4" + ("" if dtype == "fp32" else f"-dtype:{dtype}")
    clean = verdict_of(text)
    assert clean.verdict == "pass"
    for seed in range(6 if shape == "one_parameter" else 1):
        found = verdict_of(text, seeded(f"truestep.fixtures.faults.drawn:{shape}({seed}:{size})"))
        assert found.verdict == "wrong", (seed, found.worst)
        assert found.diagnosis is not None and found.diagnosis.kinds == ("scaled",), found.diagnosis


def test_every_parameter_of_a_language_model_is_watched(verdict_of: Judged) -> None:
    names = [n for n, _ in models.build("qwen2", 0).named_parameters()]
    for name in names:

        def unscale(original: Any, self: Any, name: str = name) -> None:
            original(self)
            self.gradients[name] *= 1 + 1e-5

        found = verdict_of("torch-qwen2-W1-K2", plain._on("unscale", unscale))
        assert found.verdict == "wrong", name
        assert found.diagnosis is not None and found.diagnosis.where == (name,), (name, found.diagnosis)


def test_a_bound_too_wide_is_not_a_pass(verdict_of: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MARGIN", 100.0)
    compare._expected.cache_clear()
    try:
        found = verdict_of("torch-llama-W1-K4")
    finally:
        compare._expected.cache_clear()
    assert found.verdict == "not-triggered" and found.reason.startswith("cannot tell")


def test_the_words_for_what_comes_after_the_gradient(verdict_of: Judged) -> None:
    cases = {
        "bias_correction_per_micro_batch": ("torch-mlp-W1-K4-optimizer:adam", "that of step 4, where that of step 1 was due"),
        "weight_decay_on_everything": ("torch-mlp-W1-K2-optimizer:adam-weight_decay:matrices", "weight decay of net."),
        "learning_rate_is_doubled_behind_the_report": ("torch-mlp-W1-K2", "the update is x 2"),
        "momentum_fades_between_steps": ("torch-mlp-W1-K2x2", "its old value with weight 0.45 where 0.5 is due"),
        "master_weights_are_not_copied_back": ("torch-mlp-W1-K2-dtype:bf16", "was not copied back"),
    }
    for name, (cell, words) in cases.items():
        found = verdict_of(cell, getattr(plain, name)()).diagnosis
        assert found is not None and words in found.words, (name, found)


def test_a_gradient_that_is_not_finite_or_zero(verdict_of: Judged) -> None:
    for value, words in ((float("nan"), "not finite"), (0.0, "weight 0")):

        def unscale(original: Any, self: Any, value: float = value) -> None:
            original(self)
            for gradient in self.gradients.values():
                gradient.fill_(value)

        found = verdict_of("torch-mlp-W1-K4", plain._on("unscale", unscale))
        assert found.verdict == "wrong" and found.diagnosis is not None and words in found.diagnosis.words


def test_random_pairs_come_from_different_groups() -> None:
    for seed in range(50):
        a, b = drawn.pair_of(f"{seed}:1")
        assert a != b and hasattr(plain, a) and hasattr(plain, b)
