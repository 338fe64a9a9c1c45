"""``truestep.check_step``: does your own training step take the optimizer step that you think it takes?

    def my_step(model, optimizer, micro_batches):
        optimizer.zero_grad()
        for batch in micro_batches:
            (model(**batch).loss / len(micro_batches)).backward()
        optimizer.step()

    truestep.check_step(my_step, objective="token_mean").must_be_right()   # a mean of means: AssertionError

The step is run in this process on a tiny model and judged as a framework is: by the float64 oracle, with a tolerance derived
from plain PyTorch, and with a diagnosis of what was done instead. docs/check_step.md has the rest.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn

from truestep import check_own
from truestep.fixtures import own
from truestep.fixtures.cell import ADAPTERS, Cell, CellError, Split, adapter_of, base_of
from truestep.reports.verdict import ERROR, NOT_TRIGGERED, PASS, WRONG, Check, Diagnosis, Verdict

if TYPE_CHECKING:
    import pytest

Step = Callable[..., Any]
NEAR = 1e-3  # relative; two runs of one step on one machine differ by rounding at the most


@dataclass(frozen=True)
class StepVerdict(Verdict):
    """A ``Verdict`` of your own step: ``str`` of it is the finding, ``must_be_right`` asserts that there is none.

    question, again : what was asked, and the call that asks it once more
    cause           : what your step raised, with its traceback; None where it raised nothing
    """

    question: str = ""
    again: str = ""
    cause: BaseException | None = field(default=None, compare=False)
    skip: Callable[[str], NoReturn] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        from truestep.reports import terminal

        lines = terminal.brief(self) if self.verdict == PASS else terminal.finding(self.question, self, again=self.again)
        return "\n".join(lines)

    def must_be_right(self) -> None:
        """Raises AssertionError with the finding, unless the verdict is ``pass``."""
        __tracebackhide__ = True
        if self.verdict == PASS:
            return
        if self.verdict == NOT_TRIGGERED and self.skip is not None:
            self.skip(f"{self.verdict}: {self.reason}")
        raise AssertionError(str(self)) from self.cause

    def to_json(self) -> dict[str, Any]:
        plain = Verdict(**{f.name: getattr(self, f.name) for f in fields(Verdict)})
        return {**asdict(plain), "question": self.question}


def check_step(
    step: Step,
    *,
    objective: str | Callable[..., Any] = "token_mean",
    model: str | Callable[[], Any] = "llama.lm",
    samples: Callable[[int], Mapping[str, Any]] | Sequence[Mapping[str, Any]] | None = None,
    micro_batches: int | Sequence[int] = 4,
    uneven: bool = True,
    size: int = 0,
    steps: int = 2,
    optimizer: str | Callable[[Any], Any] = "sgd",
    max_norm: float | None = None,
    batch: str = "ragged",
    seed: int = 0,
    weigh: bool = False,
    detail: bool = True,
    skip: Callable[[str], NoReturn] | None = None,
) -> StepVerdict:
    """Run your step on a tiny model and say whether it is the step that the objective makes of the whole batch.

    step          : (model, optimizer, micro_batches) -> None, the loss, {parameter: update} or ``truestep.Report``. It takes one
                    optimizer step. A generator function is handed the micro-batches of all steps and yields after each.
    objective     : a name of ``truestep.objectives()``, or a function (model, batch) -> ``truestep.Term`` or {name: Term}
    model         : a language model of truestep's (``tiny.lm`` needs no transformers), or a function that builds your module
    samples       : your own, by a function of their number or as a list: 16 for each optimizer step
    micro_batches : K, or one K for each optimizer step; ``uneven``: of unequal sizes, or else each of ``size`` (0: 16 / K)
    steps         : optimizer steps, where ``micro_batches`` is one number
    optimizer     : ``sgd`` (momentum 0.5), ``adamw``, or a function of the parameters that builds torch's SGD or AdamW
    max_norm      : the norm that your step clips the gradient to, None for no clipping
    batch         : truestep's samples: ragged, equal, padded, shuffled or prompted
    weigh         : the effective weights of a right step, too
    detail        : False: no weights of samples and tokens of a wrong one beyond what its words need, which is faster
    skip          : what ``must_be_right`` calls where the verdict is ``not-triggered``, instead of failing

    Raises CellError (a ValueError) with one line where what is asked for cannot be; what your step raises is a verdict.
    """
    asked = {name: value for name, value in locals().items() if name not in ("step", "skip", "weigh", "detail")}
    if not callable(step):
        raise CellError(f"check_step needs your step, a function of (model, optimizer, micro_batches), not {type(step).__name__}")
    cell, max_norm = _cell(asked), None if max_norm is None else float(max_norm)
    base: dict[str, Any] = dict(question=f"Is this the step that {_called(objective)} makes of the whole batch?",
                                again=_again(step, asked), skip=skip)  # fmt: skip
    begun = time.perf_counter()
    verdict = _judged(cell, step, optimizer, max_norm, detail=detail, weigh=weigh)
    if verdict.verdict == WRONG:
        verdict = _confirmed(verdict, _judged(cell, step, optimizer, max_norm, explain=False))
    return replace(verdict, **base, milliseconds=1e3 * (time.perf_counter() - begun))


def objectives() -> tuple[str, ...]:
    """The names that ``check_step(objective=...)`` knows; what each means stands in ``truestep/fixtures/objectives``."""
    from truestep.fixtures.objectives import names

    return names()


def splits(steps: int = 2, most: int = 8) -> Any:
    """A hypothesis strategy: how a batch is dealt out, as arguments of ``check_step``. Shrinks to one even micro-batch and step.

        @given(truestep.splits())
        def test_my_step(split): truestep.check_step(my_step, **split).must_be_right()

    Needs hypothesis (``pip install hypothesis``). steps: optimizer steps at most, most: micro-batches of a step at most
    """
    from hypothesis import strategies as st

    windows = st.lists(st.integers(1, most), min_size=1, max_size=steps)
    kinds = st.sampled_from(("ragged", "prompted", "padded", "shuffled"))
    return st.fixed_dictionaries({"micro_batches": windows, "uneven": st.booleans(), "batch": kinds, "seed": st.integers(0, 9)})


def fixture(request: pytest.FixtureRequest) -> Callable[..., StepVerdict]:
    """``check_step`` as pytest has it: a step that nothing can be said of is a skip, unless ``--strict-cells`` is given."""
    import functools

    import pytest

    if request.config.getoption("--strict-cells"):
        return check_step
    return functools.partial(check_step, skip=pytest.skip)


# --- what is asked -------------------------------------------------------------------------------------------


def _cell(asked: Mapping[str, Any]) -> Cell:
    """The cell that stands for it; raises CellError."""
    many, steps = asked["micro_batches"], asked["steps"]
    if isinstance(many, (str, bytes)) or not isinstance(many, (int, Sequence)):
        raise CellError(f"micro_batches cannot be {many!r}: use a whole number, or one for each optimizer step")
    if type(steps) is not int or steps < 1:
        raise CellError(f"steps cannot be {steps!r}: use a whole number from 1 on")
    windows = (many,) * steps if isinstance(many, int) else tuple(many)
    split = Split(1, windows, uneven=bool(asked["uneven"]) and not asked["size"], size=asked["size"])
    if (norm := asked["max_norm"]) is not None and not (isinstance(norm, (int, float)) and norm > 0):
        raise CellError(f"max_norm cannot be {norm!r}: use a number above 0, or None for no clipping")
    _known(asked["objective"], asked["model"])
    model, objective = check_own.registered(asked["model"], asked["samples"], asked["objective"], len(windows))
    kind = asked["optimizer"]
    knobs = [("optimizer", "adam")] if kind in ("adam", "adamw") else []
    if callable(kind):
        knobs = [("optimizer", "adam")] if check_own.is_adam(kind) else []
    knobs += [("clipping", "on")] if norm is not None else []
    cell = Cell("own", model, split, tuple(knobs), objective, asked["batch"], "cpu", asked["seed"])
    check_own.validate(cell)
    return cell


def _known(objective: Any, model: Any) -> None:
    if not callable(objective) and objective not in objectives():
        near = difflib.get_close_matches(str(objective), objectives(), 3, 0.5)
        said = f"did you mean {' or '.join(near)}? " if near else ""
        raise CellError(f"unknown objective {objective!r}: {said}truestep.objectives() lists all; or give a function of (model, batch)")
    if callable(model):
        return
    from truestep.fixtures.heads import HEADS

    language = (own.TINY, *(n for n, h in HEADS.items() if h.task == "lm"))
    if not isinstance(model, str) or base_of(model) not in language or (adapter_of(model) and adapter_of(model) not in ADAPTERS):
        near = difflib.get_close_matches(str(model), language, 3, 0.4)
        raise CellError(f"unknown model {model!r}: use {' or '.join(near or ('llama.lm', own.TINY))}, or a function that builds your module")


def _called(objective: Any) -> str:
    return objective if isinstance(objective, str) else getattr(objective, "__name__", "the objective")


def _again(step: Step, asked: Mapping[str, Any]) -> str:
    """The call, as a person would write it; what is at its default is left out."""
    usual = {n: p.default for n, p in inspect.signature(check_step).parameters.items()}
    name = getattr(step, "__name__", "step")
    given = [name if name.isidentifier() else "step"]
    for name, value in asked.items():
        if name == "objective" or value is not usual[name]:
            if value == usual[name] and name != "objective":
                continue
            text = getattr(value, "__name__", "...") if callable(value) else "..." if name == "samples" else repr(value)
            given.append(f"{name}={text}")
    return f"truestep.check_step({', '.join(given)})"


# --- one run -------------------------------------------------------------------------------------------------


def _judged(cell: Cell, step: Step, choice: Any, max_norm: float | None, explain: bool = True, **more: bool) -> StepVerdict:
    import torch

    from truestep.fixtures import models
    from truestep.fixtures.drivers import own as driver
    from truestep.fixtures.drivers import versions_of
    from truestep.reports.judge import judge

    model = models.build(cell.model, cell.seed).net
    _, optimizer, settings = driver.optimizer_of(choice, [p for p in model.parameters() if p.requires_grad], max_norm)
    base: dict[str, Any] = dict(cell=cell.to_json(), id=cell.id, versions=versions_of("own"))
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(cell.seed)
            traces, taken = driver.run(cell, step, model, optimizer, copy.deepcopy(_micro_batches(cell)))
    except driver.StepError as error:
        return StepVerdict(**base, verdict=ERROR, reason=str(error))
    except Exception as error:  # a user's code: whatever it raises is told, with its traceback
        return StepVerdict(**base, verdict=ERROR, reason=check_own.raised(error), cause=error)
    try:
        found = judge(cell, traces, settings, explain=explain, **more)
    except RuntimeError as error:  # a user's module that the diagnosis cannot take apart: the figures stand
        found = judge(cell, traces, settings, explain=False)
        found = replace(found, reason=f"{found.reason} (no diagnosis: {check_own.first_line(error)})")
    found = _finite(_too_often(found, taken), traces)
    return StepVerdict(**{f.name: getattr(found, f.name) for f in fields(Verdict)} | base)


def _micro_batches(cell: Cell) -> list[list[dict[str, Any]]]:
    """What the step is handed: for every optimizer step its micro-batches, each padded no further than its longest sample."""
    from truestep.fixtures import batches, own_models, problem

    brought = own.MODELS.get(cell.model)
    found: list[list[dict[str, Any]]] = []
    for step in range(cell.split.steps):
        (dealt,) = batches.deal(cell.split, step)
        if brought is not None and brought.seen is not None:
            found.append([brought.seen(cell.batch, cell.seed, step, rows) for rows in dealt])
        else:
            found.append([own_models.seen(problem.batch(cell, step).take(rows)) for rows in dealt])
    return found


def _too_often(verdict: Verdict, taken: Sequence[int]) -> Verdict:
    """An optimizer that stepped more than once where one step is due: what was judged is its first step."""
    step = next((s for s, n in enumerate(taken) if n > 1), None)
    if step is None:
        return verdict
    words = f"the optimizer stepped {taken[step]} times in step {step + 1}, where once is due"
    diagnosis = verdict.diagnosis
    if diagnosis is not None and diagnosis.kinds:
        diagnosis = replace(diagnosis, kinds=("steps", *diagnosis.kinds), words=f"{words}; in its first step: {diagnosis.words}")
    else:
        diagnosis = Diagnosis(("steps",), words, sure="certain")
    checks = (*verdict.checks, Check("steps", step, float(taken[step] - 1), 0.0, 0.0))
    return replace(verdict, verdict=WRONG, reason=words, checks=checks, diagnosis=diagnosis)


def _finite(verdict: Verdict, traces: Sequence[Any]) -> Verdict:
    """Which gradients are not finite, and where that usually comes from."""
    for trace in traces:
        bad = [n.removeprefix("net.") for n, g in trace.grad_consumed.items() if not bool(g.isfinite().all())]
        if bad and verdict.verdict == WRONG:
            reason = f"the gradient of step {trace.step + 1} is not finite in {len(bad)} of {len(trace.grad_consumed)} parameters (first {bad[0]})"
            return replace(verdict, reason=f"{reason}: look for a log of 0, a mean over no tokens, a softmax over nothing but masked positions")
    return verdict


def _confirmed(first: StepVerdict, second: StepVerdict) -> StepVerdict:
    """What is wrong is run once more from the same start; what does not repeat is told instead."""
    one, other = first.worst, second.worst
    if second.verdict == WRONG and one is not None and other is not None and (one.name, one.step) == (other.name, other.step):
        near = abs(one.figure - other.figure) <= max(NEAR * abs(one.figure), one.bound)
        if near or one.figure == other.figure:  # infinite ones too
            return replace(first, repeated=True)
    told = second.reason or second.verdict
    reason = f"your step does not repeat: {first.reason}; run again from the same start: {told}; it must not keep anything between runs"
    return replace(first, verdict=ERROR, reason=reason)
