"""``truestep.check_step``: right steps pass for any split, wrong ones are named, and what cannot be judged says what to do."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from torch import nn
from truestep.fixtures.cell import CellError

import truestep
from truestep import Report, Term, check_step

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE / "examples").glob("check_step_*.py"))
TINY = "tiny.lm"
Batches = list[dict[str, torch.Tensor]]


def tokens_of(micro_batches: Batches) -> int:
    return sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in micro_batches)


def right(model: Any, optimizer: Any, micro_batches: Batches) -> float:
    tokens, total = tokens_of(micro_batches), 0.0
    optimizer.zero_grad()
    for batch in micro_batches:
        loss = model(**batch, num_items_in_batch=tokens).loss
        loss.backward()
        total += float(loss.detach())
    optimizer.step()
    return total


def mean_of_means(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    optimizer.zero_grad()
    for batch in micro_batches:
        (model(**batch).loss / len(micro_batches)).backward()
    optimizer.step()


def left_out(number: int) -> Callable[..., None]:
    def step(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        tokens = tokens_of(micro_batches)
        optimizer.zero_grad()
        for k, batch in enumerate(micro_batches):
            if k != number % len(micro_batches):
                model(**batch, num_items_in_batch=tokens).loss.backward()
        optimizer.step()

    return step


# --- the examples of the documentation -------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_right_variant_of_an_example_passes_and_its_wrong_ones_are_named(path: Path) -> None:
    for package in re.findall(r"^from (accelerate|transformers) ", path.read_text(), re.MULTILINE):
        pytest.importorskip(package)
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) >= 2, "a right and a wrong variant"
    for test in tests:
        test(check_step)


def test_the_documentation_shows_these_examples() -> None:
    page = (HERE.parent / "docs" / "check_step.md").read_text()
    shown = dict(re.findall(r'```python title="(tests/examples/[^"]+)"\n(.*?)```', page, re.DOTALL))
    assert len(EXAMPLES) == 4
    assert shown == {f"tests/examples/{path.name}": path.read_text() for path in EXAMPLES}


def test_the_loop_on_top_of_the_documentation_is_wrong_in_the_words_that_stand_there() -> None:
    pytest.importorskip("transformers")
    page = (HERE.parent / "docs" / "check_step.md").read_text()
    (code, *_) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with pytest.raises(AssertionError) as caught:
        exec(code, {})
    for line in str(caught.value).splitlines():
        if "effective weights of the micro-batches" in line or "what was done" in line or "reproduce" in line or "WRONG" in line:
            assert line in page


def test_the_fixture_in_pytest_passes_fails_with_the_finding_and_skips_what_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from hypothesis import given, settings\n"
        "import truestep\n"
        "def step(model, optimizer, micro_batches, times=1.0):\n"
        "    tokens = sum((b['labels'][:, 1:] != -100).sum() for b in micro_batches)\n"
        "    optimizer.zero_grad()\n"
        "    for b in micro_batches:\n"
        "        (times * model(**b, num_items_in_batch=tokens).loss).backward()\n"
        "    optimizer.step()\n"
        "def test_right(check_step): check_step(step, model='tiny.lm').must_be_right()\n"
        "def test_wrong(check_step): check_step(lambda *a: step(*a, 4.0), model='tiny.lm').must_be_right()\n"
        "def test_silent(check_step): check_step(step, model='tiny.lm', max_norm=100.0).must_be_right()\n"
        "@settings(max_examples=5, deadline=None, database=None)\n"
        "@given(split=truestep.splits())\n"
        "def test_any(check_step, split): check_step(step, model='tiny.lm', **split).must_be_right()\n"
    )

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(tmp_path / "test_mine.py")]
    text = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False).stdout
    assert "2 passed" in text and "1 failed" in text and "1 skipped" in text, text[-3000:]
    assert "everything x 4 (K, the micro-batches of a step)" in text
    assert "effective weights of the micro-batches: (4, 4, 4, 4)/4   expected 1/4 each" in text
    assert "too small to be clipped at 100" in text


def test_under_strict_cells_what_says_nothing_fails() -> None:
    from truestep.check import fixture

    def asked(strict: bool) -> Any:
        return fixture(SimpleNamespace(config=SimpleNamespace(getoption={"--strict-cells": strict}.__getitem__)))  # type: ignore[arg-type]

    for strict, outcome in ((True, AssertionError), (False, pytest.skip.Exception)):
        with pytest.raises(outcome, match="too small to be clipped"):
            asked(strict)(right, model=TINY, max_norm=100.0).must_be_right()


# --- right steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("many", [1, 2, 4, 8, (3, 1, 4)])
def test_a_right_step_passes(optimizer: str, many: Any) -> None:
    verdict = check_step(right, model=TINY, micro_batches=many, optimizer=optimizer)
    verdict.must_be_right()
    assert str(verdict).startswith("PASS")
    names = [c.name for c in verdict.checks if c.step == 0]
    assert names == sorted(names, key=("initial", "gradient", "loss", "norm", "lr", "moments", "update", "weights").index)
    assert {"gradient", "loss", "moments", "update", "weights"} <= set(names)
    assert all(c.bound < 1e-5 for c in verdict.checks)


@settings(max_examples=25, deadline=None)
@given(split=truestep.splits(), optimizer=st.sampled_from(("sgd", "adamw")))
def test_a_right_step_passes_for_any_split(split: dict[str, Any], optimizer: str) -> None:
    check_step(right, model=TINY, optimizer=optimizer, **split).must_be_right()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(split=truestep.splits(), number=st.integers(0, 7))
def test_a_micro_batch_left_out_is_named_for_any_split(split: dict[str, Any], number: int) -> None:
    window = split["micro_batches"][0]
    verdict = check_step(left_out(number), model=TINY, **split)
    assert verdict.verdict == "wrong" and verdict.diagnosis is not None
    assert verdict.diagnosis.kinds[0] == "dropped"
    if window == 1:
        assert "every micro-batch has weight 0" in verdict.diagnosis.words
        return
    expected = [float(k != number % window) for k in range(window)]
    torch.testing.assert_close(list(verdict.diagnosis.weights[0]), expected, atol=1e-4, rtol=0)
    assert f"micro-batch {number % window + 1} of {window} has weight 0" in verdict.diagnosis.words


def test_what_is_wrong_shrinks_to_two_micro_batches_of_one_step() -> None:
    def is_wrong(split: dict[str, Any]) -> bool:
        return check_step(mean_of_means, model=TINY, detail=False, **split).verdict == "wrong"

    smallest = find(truestep.splits(steps=1, most=4), is_wrong, settings=settings(deadline=None, max_examples=30, database=None))
    assert smallest["micro_batches"] == [2] and (smallest["uneven"], smallest["batch"], smallest["seed"]) == (False, "ragged", 0)


def test_a_generator_takes_all_steps_and_an_update_may_be_returned() -> None:
    def steps(model: Any, optimizer: Any, windows: list[Batches]) -> Iterator[float]:
        for micro_batches in windows:
            yield right(model, optimizer, micro_batches)

    def update(model: Any, optimizer: Any, micro_batches: Batches, scale: float = 1.0) -> dict[str, torch.Tensor]:
        tokens = tokens_of(micro_batches)
        loss = sum(model(**batch, num_items_in_batch=tokens).loss for batch in micro_batches)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        return {n: -0.125 * scale * g for (n, _), g in zip(model.named_parameters(), grads, strict=True)}

    check_step(steps, model=TINY, steps=3).must_be_right()
    check_step(update, model=TINY).must_be_right()
    half = check_step(lambda *given: update(*given, scale=0.5), model=TINY)
    assert half.diagnosis is not None and half.diagnosis.words.startswith("everything x 1/2")


@pytest.mark.parametrize("name", ["dpo_sigmoid", "grpo", "sequence_mean"])
def test_objectives_by_name(name: str) -> None:
    """A step in plain PyTorch from the objective's own definition, and the same with the sum of micro-batches not averaged."""

    def step(model: Any, optimizer: Any, micro_batches: Batches, times: float = 1.0) -> None:
        optimizer.zero_grad()
        samples = sum(len(batch["input_ids"]) for batch in micro_batches)
        for batch in micro_batches:
            ids, labels = batch["input_ids"], batch["labels"]
            flat = ids.flatten(0, -2)
            logits = model(input_ids=flat, attention_mask=batch["attention_mask"].flatten(0, -2)).logits[:, :-1]
            logp = logits.log_softmax(-1).gather(-1, flat[:, 1:, None])[..., 0].view(*ids.shape[:-1], -1)
            trained = labels[..., 1:] != -100
            if name == "dpo_sigmoid":
                ratio = (logp * trained).sum(-1) - batch["reference"]
                losses = -nn.functional.logsigmoid(0.25 * (ratio[:, 0] - ratio[:, 1]))
            elif name == "grpo":
                advantage, ratio = batch["advantage"][:, None], (logp - batch["old"][:, :-1]).exp()
                surrogate = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
                losses = (surrogate * trained).sum(-1) / trained.sum(-1)
            else:
                losses = -(logp * trained).sum(-1) / trained.sum(-1)
            (times * losses.sum() / samples).backward()
        optimizer.step()

    check_step(step, objective=name, model=TINY).must_be_right()
    verdict = check_step(lambda *given: step(*given, times=4.0), objective=name, model=TINY)
    assert verdict.diagnosis is not None and "everything x 4" in verdict.diagnosis.words


# --- a user's own model, samples and objective -------------------------------------------------------------------


def regression() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def point(i: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(i)
    return {"x": torch.randn(3, generator=random), "y": torch.randn(2, generator=random) + i / 4}


def squares(model: Any, batch: dict[str, torch.Tensor]) -> Term:
    return Term((model(batch["x"]) - batch["y"]).square().sum(-1))


def fit(model: Any, optimizer: Any, micro_batches: Batches, mean: bool = False) -> None:
    rows = sum(len(batch["x"]) for batch in micro_batches)
    optimizer.zero_grad()
    for batch in micro_batches:
        losses = (model(batch["x"]) - batch["y"]).square().sum(-1)
        (losses.mean() / len(micro_batches) if mean else losses.sum() / rows).backward()
    optimizer.step()


def test_an_own_module_with_own_samples_and_objective() -> None:
    own: dict[str, Any] = dict(model=regression, samples=point, objective=squares)
    check_step(fit, **own).must_be_right()
    check_step(fit, **{**own, "samples": [point(i) for i in range(32)]}).must_be_right()
    verdict = check_step(lambda *given: fit(*given, mean=True), **own)
    assert verdict.diagnosis is not None and verdict.diagnosis.kinds == ("re-weighted",)
    assert verdict.diagnosis.weights[0] == pytest.approx([16 / 4 / n for n in (7, 2, 3, 4)], abs=1e-4)


def test_an_own_language_model_under_an_objective_by_name() -> None:
    from truestep.fixtures.own_models import TinyLm

    check_step(right, model=TinyLm, objective="token_mean").must_be_right()
    assert check_step(mean_of_means, model=TinyLm, objective="token_mean").verdict == "wrong"


class Opaque(torch.autograd.Function):
    """A backward that the diagnosis cannot batch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        assert float(grads[0].sum()) == float(grads[0].sum())  # asks for a number: not under vmap
        return grads[0] * 2


class WithOpaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = regression()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Opaque.apply(self.net(x))
        return found


def test_a_module_that_cannot_be_taken_apart_is_judged_without_a_diagnosis() -> None:
    own: dict[str, Any] = dict(model=WithOpaque, samples=point, objective=squares)
    check_step(fit, **own).must_be_right()
    verdict = check_step(lambda *given: fit(*given, mean=True), **own)
    assert verdict.verdict == "wrong" and verdict.diagnosis is None and "no diagnosis: " in verdict.reason


def both(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, Term]:
    """Two terms of the same tokens: their mean, and a penalty on the logits normalised by a constant."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    trained = batch["labels"][:, 1:] != -100
    nll = -logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return {"nll": Term(nll, trained), "penalty": Term(logits.square().mean(-1), trained, mean=64.0)}


@pytest.mark.parametrize(
    ("nll", "penalty", "kind", "words"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), "", ""),
        ((1, 1, 1, 1), (0, 0, 0, 0), "dropped", "the penalty term has weight 0"),
        ((1, 1, 1, 1), (2, 2, 2, 2), "double-counted", "the penalty term is counted twice"),
        ((0.25,) * 4, (1, 1, 1, 1), "scaled", "the nll term x 1/4 (1 / (K, the micro-batches of a step))"),
        ((1, 1, 1, 1), (1, 1, 1, 0), "dropped", "the penalty term has weight 0 in micro-batch 4 of 4"),
        ((1, 2, 1, 2), (1, 1, 1, 1), "double-counted", "the nll term is counted twice in micro-batches 2, 4 of 4"),
        ((1, 1, 1, 1), (3, 1, 0.5, 1), "re-weighted", "the penalty term weighs 0.5 to 3 times what it should"),
        ((4, 4, 4, 4), (4, 4, 4, 4), "scaled", "everything x 4 (K, the micro-batches of a step)"),
        ((0, 1, 1, 1), (0, 1, 1, 1), "dropped", "micro-batch 1 of 4 has weight 0"),
    ],
)
def test_terms_are_told_apart(nll: Any, penalty: Any, kind: str, words: str) -> None:
    def step(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        tokens = tokens_of(micro_batches)
        optimizer.zero_grad()
        for batch, a, b in zip(micro_batches, nll, penalty, strict=True):
            found = {n: (t.losses * t.mask).sum() for n, t in both(model, batch).items()}
            (a * found["nll"] / tokens + b * found["penalty"] / 64).backward()
        optimizer.step()

    verdict = check_step(step, objective=both, model=TINY, steps=1)
    if not kind:
        return verdict.must_be_right()
    assert verdict.diagnosis is not None
    assert (verdict.verdict, verdict.diagnosis.kinds, verdict.diagnosis.words) == ("wrong", (kind,), words)


# --- every check can fail ------------------------------------------------------------------------------------------


def no_zero_grad(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    for batch in micro_batches:
        model(**batch, num_items_in_batch=tokens_of(micro_batches)).loss.backward()
    optimizer.step()


def clipped(model: Any, optimizer: Any, micro_batches: Batches, norm: float = 0.5) -> None:
    tokens = tokens_of(micro_batches)
    optimizer.zero_grad()
    for batch in micro_batches:
        model(**batch, num_items_in_batch=tokens).loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimizer.step()


def stepping_each(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    for batch in micro_batches:
        right(model, optimizer, [batch])


def decayed_by_hand(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    right(model, optimizer, micro_batches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.99


def forgets_momentum(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    right(model, optimizer, micro_batches)
    for state in optimizer.state.values():
        state["momentum_buffer"].zero_()


def warm_up(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    optimizer.param_groups[0]["lr"] = 0.0625
    right(model, optimizer, micro_batches)


def prompt_too(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    """``labels = input_ids``: the prompt is trained as well."""
    right(model, optimizer, [{**b, "labels": b["input_ids"].where(b["attention_mask"] == 1, -100)} for b in micro_batches])


def not_finite(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    optimizer.zero_grad()
    for batch in micro_batches:
        (model(**batch).loss * float("nan")).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("step", "check", "kind", "words"),
    [
        (mean_of_means, "gradient", "re-weighted", "every micro-batch was averaged over its own tokens"),
        (no_zero_grad, "gradient", "stale", "the previous step's gradient is in it"),
        (clipped, "gradient", "clipped", "the gradient was clipped to norm 0.5 though nobody asked"),
        (prompt_too, "gradient", "misaligned", "every prompt token has weight, and should have none"),
        (stepping_each, "gradient", "steps", "the optimizer stepped 4 times in step 1, where once is due"),
        (decayed_by_hand, "update", "update", "decay"),
        (forgets_momentum, "moments", "moments", "momentum_buffer"),
        (warm_up, "lr", "lr", "the learning rate is 0.0625 where 0.125 was asked for"),
        (lambda *a: 4 * right(*a), "loss", "loss", "x 4 (K, the micro-batches of a step); the step itself is another question"),
        (lambda *a: Report(loss=right(*a), grad_norm=7.0), "norm", "norm", "the gradient norm reported is 7"),
        (not_finite, "gradient", "unexplained", "the gradient is not finite"),
    ],
)  # fmt: skip
def test_every_check_can_fail(step: Any, check: str, kind: str, words: str) -> None:
    verdict = check_step(step, model=TINY)
    assert verdict.verdict == "wrong" and verdict.diagnosis is not None and verdict.worst is not None
    assert verdict.repeated
    assert verdict.worst.name == check, verdict
    assert kind in verdict.diagnosis.kinds and words in verdict.diagnosis.words, verdict
    with pytest.raises(AssertionError, match=re.escape(words)):
        verdict.must_be_right()


def test_a_frozen_weight_that_moves_and_steps_that_were_not_taken() -> None:
    def frozen() -> nn.Module:
        net = regression()
        net[0].bias.requires_grad_(False)  # type: ignore[index]
        return net

    def moves(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        fit(model, optimizer, micro_batches)
        with torch.no_grad():
            model[0].bias += 1.0

    check_step(fit, model=frozen, samples=point, objective=squares).must_be_right()
    verdict = check_step(moves, model=frozen, samples=point, objective=squares)
    assert verdict.worst is not None and (verdict.worst.name, verdict.worst.where) == ("weights", "what does not train")

    def one(model: Any, optimizer: Any, windows: list[Batches]) -> Iterator[None]:
        yield right(model, optimizer, windows[0])  # type: ignore[misc]

    assert check_step(one, model=TINY).reason == "1 of 2 optimizer steps were taken"


def test_clipping_that_was_declared() -> None:
    check_step(clipped, model=TINY, max_norm=0.5).must_be_right()
    assert "was not clipped: norm" in str(check_step(right, model=TINY, max_norm=0.5))
    silent = check_step(right, model=TINY, max_norm=100.0)
    assert silent.verdict == "not-triggered"
    with pytest.raises(AssertionError, match="too small to be clipped at 100"):
        silent.must_be_right()


def test_an_optimizer_of_ones_own_is_held_to_its_own_numbers() -> None:
    def adamw(parameters: Any) -> Any:
        return torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)

    check_step(right, model=TINY, optimizer=adamw).must_be_right()
    check_step(right, model=TINY, optimizer=lambda p: torch.optim.SGD(p, lr=0.05)).must_be_right()

    def decay_lost(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        optimizer.param_groups[0]["weight_decay"] = 0.0
        right(model, optimizer, micro_batches)

    verdict = check_step(decay_lost, model=TINY, optimizer=lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.5))
    assert verdict.diagnosis is not None and "where 0.5 was asked for" in verdict.diagnosis.words


# --- what cannot be judged -------------------------------------------------------------------------------------------


def copied(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    import copy

    other = copy.deepcopy(model)
    right(other, torch.optim.SGD(other.parameters(), lr=0.1), micro_batches)


def replaced(model: Any, optimizer: Any, micro_batches: Batches) -> None:
    model.head = nn.Linear(18, 32)
    right(model, optimizer, micro_batches)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda *_: None, r"never called optimizer\.step\(\) .*: call it, or return \{name: update\}"),
        (copied, r"a copy of the model\?"),
        (lambda m, o, b: right(m, torch.optim.SGD(m.parameters(), lr=0.1), b), "moved the weights without the optimizer that it was handed"),
        (replaced, "replaced the parameter 'head.weight' .*change it in place"),
        (lambda m, o, b: right(m.double(), o, b), "into torch.float64: it is checked in float32"),
        (lambda m, o, b: (right(m, o, b), 1), "returned tuple: return nothing, the loss"),
        (lambda m, o, b: {"nowhere": torch.zeros(1)}, "does not fit the model at 'embed.weight'"),
        (lambda m, o: None, "your step raised TypeError: .*takes 2 positional arguments"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_be_judged_says_what_to_do_in_one_line(step: Any, reason: str) -> None:
    verdict = check_step(step, model=TINY)
    assert verdict.verdict == "error" and "\n" not in verdict.reason
    assert re.search(reason, verdict.reason), verdict.reason


def test_what_a_step_raises_is_an_error_with_its_line_and_its_traceback() -> None:
    def boom(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        raise KeyError("labelz")

    verdict = check_step(boom, model=TINY)
    assert verdict.verdict == "error"
    assert re.fullmatch(r"your step raised KeyError: 'labelz', line \d+ of boom in test_check_step.py", verdict.reason)
    with pytest.raises(AssertionError, match="labelz") as caught:
        verdict.must_be_right()
    assert isinstance(caught.value.__cause__, KeyError)
    json.dumps(verdict.to_json())


def test_a_gradient_that_is_not_finite_says_where_and_what_to_look_for() -> None:
    reason = check_step(not_finite, model=TINY).reason
    assert re.fullmatch(r"the gradient of step 1 is not finite in 5 of 5 parameters \(first embed.weight\): look for .*", reason)


def test_a_step_that_does_not_repeat_is_not_accused() -> None:
    calls: list[int] = []

    def moody(model: Any, optimizer: Any, micro_batches: Batches) -> None:
        calls.append(1)
        left_out(len(calls))(model, optimizer, micro_batches)

    verdict = check_step(moody, model=TINY, steps=1)
    assert verdict.verdict == "error" and verdict.reason.startswith("your step does not repeat")


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"objective": "tokenmean"}, "unknown objective 'tokenmean': did you mean token_mean"),
        ({"model": "llama"}, "unknown model 'llama': use llama.lm"),
        ({"micro_batches": 99}, "impossible split.*use fewer micro-batches"),
        ({"micro_batches": "4"}, "micro_batches cannot be '4'"),
        ({"steps": 0}, "steps cannot be 0"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"max_norm": -1}, "max_norm cannot be -1"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': use 'sgd', 'adamw'"),
        ({"optimizer": lambda p: torch.optim.Adagrad(p)}, "use torch's SGD or AdamW"),
        ({"batch": "square"}, "unknown batch 'square'"),
        ({"model": regression, "samples": point}, "a named objective needs input_ids and labels"),
        ({"model": regression, "samples": [point(0)], "objective": squares}, "1 samples: an optimizer step takes 16, 2 of them 32"),
        ({"model": dropout, "samples": point, "objective": squares}, "build it without dropout"),
        ({"model": lambda: 3, "samples": point, "objective": squares}, "return a torch.nn.Module"),
        ({"model": lambda: regression().double(), "samples": point, "objective": squares}, "is not float32 on the CPU"),
        ({"objective": lambda m, b: m(**b).loss}, "must return a truestep.Term"),
        ({"objective": lambda m, b: Term(m(**b).loss)}, "return them unreduced"),
        ({"objective": lambda m, b: Term(m(**b).logits.mean((1, 2)), mean="tokens")}, "use 'token', 'sequence'"),
        ({"objective": lambda m, b: Term(m(**b).logits.mean((1, 2)), weight=-1.0)}, "a sign belongs into the losses"),
        ({"objective": lambda m, b: Term(m(**b).logits.mean((1, 2)) / len(b["labels"]))}, "depends on which other samples are in its batch"),
        ({"objective": lambda m, b: Term(m(**b).logits.mean((1, 2)), mask=torch.arange(len(b["labels"])) > 9)}, "micro-batch 1 of step 1 has nothing to train on"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_that_says_what_to_do(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(CellError) as caught:
        check_step(right, **{"model": TINY, **asked})
    assert "\n" not in str(caught.value)
    assert re.search(message, str(caught.value)), caught.value


def test_no_command_runs_a_step_of_ones_own() -> None:
    from truestep.fixtures.cell import parse

    with pytest.raises(CellError, match=r"call truestep\.check_step again"):
        parse(check_step(right, model=TINY).id)


def test_importing_truestep_imports_no_torch_and_names_are_there() -> None:
    code = "import sys, truestep; assert 'torch' not in sys.modules; print(truestep.objectives()[:2]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == ("token_mean", "sequence_mean")


def test_a_bound_that_rounding_widens_is_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from truestep.reports import compare

    monkeypatch.setattr(compare, "MARGIN", 1e3)
    for cached in (compare._at_the_start, compare._expected):
        cached.cache_clear()
    try:
        verdict = check_step(right, model=TINY, seed=7)
    finally:
        for cached in (compare._at_the_start, compare._expected):
            cached.cache_clear()
    assert verdict.verdict == "not-triggered" and verdict.reason.startswith("cannot tell")
