"""Verdicts and what they rest on. Standard library only: a plugin reads these, not tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Only ``pass`` is green; see DESIGN, vocabulary.
PASS, WRONG, BY_DESIGN, INCOMPATIBLE, NOT_TRIGGERED, ERROR, TIMEOUT, SKIPPED = VERDICTS = (
    "pass", "wrong", "by-design", "incompatible", "not-triggered", "error", "timeout", "skipped",
)  # fmt: skip
RED = (WRONG, ERROR, TIMEOUT)
SENSITIVITY = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 1e-2}  # smallest relative error that must be caught, by dtype


@dataclass(frozen=True)
class Check:
    """One figure against its tolerance.

    name   : initial, gradient, loss, norm, moments, update, weights, ranks, reload or "reading <API>"
    step   : optimizer step, from 0
    figure : the relative error (2-norm) there
    bound  : the tolerance for it, noise : what plain PyTorch showed in the same place
    where  : the parameter whose error is nearest to (or furthest beyond) its own bound, "" for the whole
    widest : the widest bound of any parameter: what may hide anywhere
    """

    name: str
    step: int
    figure: float
    bound: float
    noise: float
    where: str = ""
    widest: float = 0.0

    @property
    def red(self) -> bool:
        return not self.figure <= self.bound  # a NaN is red


@dataclass(frozen=True)
class Diagnosis:
    """What was done wrong, in words and numbers (DESIGN, section 5).

    kinds    : out of dropped, double-counted, scaled, re-weighted, misaligned, stale, unreduced, clipped,
               rounded, unexplained; several where several faults were told apart
    words    : one sentence
    weights  : effective weight of micro-batch k of rank r, as a multiple of what it should be, weights[r][k]
    residual : what the weights leave unexplained, relative to the gradient consumed
    unit     : the units that the words are about: micro-batch, sample, token or position; "" for parameters
    samples  : effective weight of every sample of the batch; tokens[i][t] of every position, None where it was not
               looked for; both where asked for, or where the words need them
    doubt    : how far rounding may have moved any weight; condition: of the columns
    sure     : certain, likely or cannot tell; why: what that rests on
    where    : the parameters that carry the error, where it is not in all of them
    """

    kinds: tuple[str, ...]
    words: str
    weights: tuple[tuple[float, ...], ...] = ()
    residual: float = 0.0
    unit: str = ""
    samples: tuple[float, ...] = ()
    tokens: tuple[tuple[float | None, ...], ...] = ()
    doubt: float = 0.0
    condition: float = 0.0
    sure: str = ""
    why: str = ""
    where: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Diagnosis:
        data = dict(data)
        for name in ("kinds", "samples", "where"):
            data[name] = tuple(data.get(name, ()))
        for name in ("weights", "tokens"):
            data[name] = tuple(tuple(row) for row in data.get(name, ()))
        return cls(**data)


@dataclass(frozen=True)
class Verdict:
    """The answer for one cell. ``versions``, ``stand_ins`` and ``patches`` say under which conditions it holds."""

    cell: Mapping[str, Any]
    id: str
    verdict: str
    reason: str = ""
    checks: tuple[Check, ...] = ()
    diagnosis: Diagnosis | None = None
    advisory: str = ""
    besides: tuple[str, ...] = ()  # kinds of the diagnosis that no known bug of this cell explains
    versions: Mapping[str, str] = field(default_factory=dict)
    stand_ins: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()
    link: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  # what the installed model was found to do (a driver's ``behaviour``)
    milliseconds: float = 0.0
    repeated: bool = False  # confirmed in a fresh process

    @property
    def worst(self) -> Check | None:
        """The red check to report (in the order they were compared), else the one nearest its bound."""
        for check in self.checks:
            if check.red:
                return check
        return max(self.checks, key=lambda c: c.figure / c.bound if c.bound else 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        data = dict(data)
        data["checks"] = tuple(Check(**c) for c in data.get("checks", ()))
        if data.get("diagnosis"):
            data["diagnosis"] = Diagnosis.from_json(data["diagnosis"])
        for name in ("stand_ins", "patches", "besides"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)
