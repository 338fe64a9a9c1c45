"""One known bug as data: which versions have it, under which settings, what it looks like, what cures it.

Reading an advisory needs neither torch nor the framework; an audit of a lock file loads all of them in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from packaging.version import InvalidVersion, Version

Kind = Literal[
    "dropped",
    "double-counted",
    "scaled",
    "re-weighted",
    "misaligned",
    "stale",
    "unreduced",
    "clipped",
    "rounded",
    "unexplained",
    # Where no weights can tell, the check that is red (see truestep.reports.verdict.Check).
    "initial",
    "loss",
    "norm",
    "lr",
    "moments",
    "update",
    "weights",
    "ranks",
    "reload",
    "reading",
]
KINDS: frozenset[str] = frozenset(get_args(Kind))

Range = tuple[str, str | None]
"""(introduced, fixed): half open, PEP 440; fixed = None means that no release has the fix."""

Condition = tuple[Any, ...] | Mapping[str, Any]
"""The allowed values of a fact, or ``{"min": n}``, ``{"max": n}``, ``{"not": (values,)}`` in any combination."""

Alternative = Mapping[str, Condition]
_OPERATORS = frozenset({"min", "max", "not"})


def _canonical(value: object) -> object:
    """A knob may arrive as a bool, as None or as the text that stands for it in a cell id."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _packages(facts: Mapping[str, object], own: str) -> tuple[Any, ...]:
    """The packages that a cell stands on: a trainer's cell shows the bugs of what is below it too."""
    packages = facts.get("packages", (facts.get("framework", own),))
    return packages if isinstance(packages, tuple) else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _holds(condition: Condition, value: object) -> bool:
    if not isinstance(condition, Mapping):
        return _canonical(value) in [_canonical(allowed) for allowed in condition]
    if "not" in condition and _holds(tuple(condition["not"]), value):
        return False
    if "min" in condition or "max" in condition:
        number = _number(value)
        if number is None:
            return False
        if "min" in condition and number < condition["min"]:
            return False
        if "max" in condition and number > condition["max"]:
            return False
    return True


def parse_version(version: str) -> Version | None:
    """The version, or None where it is not PEP 440 (a local build named by hand, say)."""
    try:
        return Version(version)
    except InvalidVersion:
        return None


@dataclass(frozen=True)
class Advisory:
    """A known bug. Frozen; everything in it is data and can be written out."""

    id: str
    framework: str
    title: str
    affected: tuple[Range, ...]
    trigger: tuple[Alternative, ...]
    signature: tuple[Kind, ...]
    links: tuple[str, ...]
    cell: str
    """A cell id that shows the bug on every affected version."""
    patch: str | None = None
    """The id of the patch that cures it, if there is one."""
    measured: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Cell (with the version in brackets) -> relative error of the step, as seen when it was run."""
    details: str = ""
    by_design: bool = False
    """Not a bug but a documented choice: ``links`` must then name the documentation that says so."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.signature if kind not in KINDS]
        if unknown:
            raise ValueError(f"{self.id}: unknown kind of diagnosis {unknown[0]!r}; known: {', '.join(sorted(KINDS))}")
        for introduced, fixed in self.affected:
            lower, upper = Version(introduced), None if fixed is None else Version(fixed)
            if upper is not None and upper <= lower:
                raise ValueError(f"{self.id}: the range {introduced} .. {fixed} is empty")
        for alternative in self.trigger:
            for fact, condition in alternative.items():
                if isinstance(condition, Mapping):
                    if not condition or not set(condition) <= _OPERATORS:
                        raise ValueError(f"{self.id}: condition on {fact!r} may use min, max and not only")
                elif not isinstance(condition, tuple):
                    raise ValueError(f"{self.id}: condition on {fact!r} must be a tuple or a mapping")
        object.__setattr__(self, "measured", MappingProxyType(dict(self.measured)))

    def affects(self, version: str) -> bool:
        """Whether this release has the bug. A version that cannot be read is not claimed to have it."""
        parsed = parse_version(version)
        if parsed is None:
            return False
        return any(
            Version(introduced) <= parsed and (fixed is None or parsed < Version(fixed)) for introduced, fixed in self.affected
        )

    def fixed_in(self, version: str | None = None) -> str | None:
        """The first release with the fix, seen from this version (from the newest range without one)."""
        parsed = None if version is None else parse_version(version)
        ends = [fixed for _, fixed in self.affected]
        if parsed is not None:
            ends = [fixed for fixed in ends if fixed is None or parsed < Version(fixed)]
        if not ends or None in ends[:1]:
            return None
        return ends[0] if parsed is not None else ends[-1]

    def predicts(self, facts: Mapping[str, object], version: str) -> bool:
        """Whether a cell with these facts goes wrong on this version of ``framework``. A fact that is not given matches nothing."""
        return self.affects(version) and self.concerns(facts)

    def concerns(self, facts: Mapping[str, object]) -> bool:
        """Whether a cell with these facts would go wrong on a version that has the bug."""
        if self.framework not in _packages(facts, self.framework):
            return False
        return any(
            all(fact in facts and _holds(condition, facts[fact]) for fact, condition in alternative.items())
            for alternative in self.trigger
        )

    def why_not_affected(self, version: str) -> str:
        """One clause for a report: why this release does not have the bug."""
        parsed = parse_version(version)
        if parsed is None:
            return f"the version {version!r} cannot be read"
        before = [fixed for _, fixed in self.affected if fixed is not None and parsed >= Version(fixed)]
        if before:
            return f"fixed in {before[-1]}"
        return f"introduced in {self.affected[0][0]}"

    def to_osv(self) -> dict[str, Any]:
        """The advisory in the shape of the OSV schema (https://ossf.github.io/osv-schema/)."""
        ranges = []
        for introduced, fixed in self.affected:
            events: list[dict[str, str]] = [{"introduced": introduced}]
            if fixed is not None:
                events.append({"fixed": fixed})
            ranges.append({"type": "ECOSYSTEM", "events": events})
        return {
            "schema_version": "1.6.0",
            "id": f"TRUESTEP-{self.id}",
            "modified": "2026-11-21T00:00:00Z",
            "aliases": [],
            "summary": self.title,
            "details": self.details,
            "affected": [{"package": {"ecosystem": "PyPI", "name": self.framework}, "ranges": ranges}],
            "references": [{"type": "FIX" if "/pull/" in link else "REPORT", "url": link} for link in self.links],
            "database_specific": {
                "trigger": [{fact: _plain(condition) for fact, condition in one.items()} for one in self.trigger],
                "signature": list(self.signature),
                "measured": dict(self.measured),
                "cell": self.cell,
                "patch": self.patch,
            },
        }


def _plain(condition: Condition) -> Any:
    if isinstance(condition, Mapping):
        return {name: list(value) if isinstance(value, tuple) else value for name, value in condition.items()}
    return list(condition)
