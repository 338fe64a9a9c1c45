"""Results as they may be shown to everyone: of an environment what is on a list, of the rest no path, host, address or process.

What is not named here is left out, so a snapshot that learns to say more does not publish it by itself. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from truestep.reports.results import Environment, Results, Row, Run

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,39}")
#: a kernel's own number, without what a distribution or an owner appended to it
_SYSTEM = re.compile(r"(?:Linux|Darwin|Windows)(?: [0-9]+(?:\.[0-9]+){0,2})?")
_PLATFORM = re.compile(r"(?:Linux|Darwin|Windows|macOS)(?: (?:x86_64|amd64|AMD64|aarch64|arm64|i686|ppc64le))?")
_MACHINE = re.compile(r"x86_64|amd64|AMD64|aarch64|arm64|i686|ppc64le|s390x|riscv64")
_PROCESSOR = re.compile(r"(?:AMD|Intel|Apple|ARM|Ampere|Neoverse|Cortex|IBM|POWER)[A-Za-z0-9 ()@+.-]{0,70}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
#: of a verdict, what is kept
ROW = (
    "id", "verdict", "family", "question", "cell", "reason", "checks", "diagnosis", "advisory", "besides", "fingerprint", "kinds", "versions",
    "stand_ins", "patches", "link", "facts", "milliseconds", "repeated",
)  # fmt: skip


def public(results: Results, hosts: Iterable[str] = ()) -> Results:
    """The same verdicts without anything private. hosts: names of machines that must not appear in any text."""
    names = tuple(sorted({name for name in hosts if name and name != "localhost"}, key=lambda n: (-len(n), n)))

    def plain(text: str) -> str:
        return without(text, names)

    environments = []
    for number, one in enumerate(results.environments):
        runs = tuple(_run(run, plain, f"{number}.{turn}") for turn, run in enumerate(one.runs))
        environments.append(Environment(plain(one.name), runs))
    return Results(tuple(environments), tuple(_problem(text, plain) for text in results.problems))


def packages() -> frozenset[str]:
    """The packages whose versions are told: those that truestep drives, and what their answers may depend on."""
    from truestep.fixtures.drivers import BUILT_IN, VERIFIED
    from truestep.reports.snapshot import BESIDES

    return frozenset((*VERIFIED, *BUILT_IN, *BESIDES))


def environment(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of an environment (``snapshot.snapshot``); a value that does not look like what it should be is left out."""
    found: dict[str, Any] = {"packages": versions(snapshot.get("packages", {}))}
    for name, pattern in (("python", _VERSION), ("machine", _MACHINE), ("processor", _PROCESSOR)):
        if pattern.fullmatch(str(snapshot.get(name, ""))):
            found[name] = str(snapshot[name])
    if system := _SYSTEM.match(str(snapshot.get("system", ""))):
        found["system"] = system[0]
    if type(snapshot.get("cores")) is int:
        found["cores"] = snapshot["cores"]
    own = snapshot.get("truestep")
    if isinstance(own, Mapping):
        digits = {name: str(own.get(name, "")) for name in ("code", "commit")}
        found["truestep"] = {
            "version": own["version"] if _VERSION.fullmatch(str(own.get("version", ""))) else "",
            **{name: text if re.fullmatch("[0-9a-f]{0,40}", text) else "" for name, text in digits.items()},
            "dirty": own.get("dirty") if isinstance(own.get("dirty"), bool) else None,
        }
    return found


def versions(found: Mapping[str, Any]) -> dict[str, str]:
    """Of the packages on the list; python and platform stand among them in a verdict."""
    listed = packages()
    kept = {}
    for name, version in found.items() if isinstance(found, Mapping) else ():
        pattern = _PLATFORM if name == "platform" else _VERSION
        if (name in listed or name in ("python", "platform")) and pattern.fullmatch(str(version)):
            kept[str(name)] = str(version)
    return kept


def options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Whether patches were applied and known findings expected; that cells were selected or setup functions called, but not which."""
    patch = asked.get("patch", False)
    if isinstance(patch, (list, tuple)):
        patch = [str(name) for name in patch if re.fullmatch(r"[a-z0-9-]{1,60}", str(name))] or bool(patch)
    kept: dict[str, Any] = {"patch": patch if isinstance(patch, (bool, list)) else bool(patch)}
    kept |= {name: asked[name] for name in ("quick", "expect_known") if isinstance(asked.get(name), bool)}
    kept |= {"selected": any(asked.get(name) for name in ("k", "m", "cell")) or asked.get("selected") is True, "setup": bool(asked.get("setup"))}
    return kept


def _run(run: Run, plain: Callable[[str], str], name: str) -> Run:
    rows = tuple(_row(row, plain) for row in run.rows)
    told: Mapping[str, str] = next((row["versions"] for row in rows if row["versions"]), {})  # the first schema knows these from its rows alone
    system, _, machine = told.get("platform", "").partition(" ")
    of_rows = {name: value for name, value in (("python", told.get("python")), ("system", system), ("machine", machine)) if value}
    started, finished = (time if _TIME.fullmatch(time) else "" for time in (run.started, run.finished))
    return replace(
        run, id=name, name=plain(run.name), source="", started=started, finished=finished, alive=False, resumes="", rows=rows,
        environment=of_rows | environment(run.environment), options=options(run.options),
    )  # fmt: skip


def _row(row: Row, plain: Callable[[str], str]) -> Row:
    kept: dict[str, Any] = {name: _walk(row[name], plain) for name in ROW if name in row}
    return {**kept, "versions": versions(row.get("versions") or {})}


def _walk(value: Any, plain: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(str(name)): _walk(one, plain) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [one if type(one) is float else _walk(one, plain) for one in value]
    return value


def _problem(text: str, plain: Callable[[str], str]) -> str:
    """A line that could not be read, by the name of its file alone."""
    return plain(re.sub(r"^.*?([^/\\]+?:\d+: )", r"\1", text, count=1))


_PART = r"[\w.@+~%-]+"
_PATHS = tuple(
    re.compile(pattern)
    for pattern in (
        r"file://(?P<path>[^\s'\"]*)",
        r"(?<=['\"])(?:/|~|[A-Za-z]:\\)(?P<path>[^'\"\n]*)(?=['\"])",  # quoted: it may hold blanks
        rf"(?<![\w:/.)\]…])(?:~[\w-]*)?(?P<path>(?:/{_PART}){{2,}}/?)",
        r"(?<![\w:/.…])(?P<path>/(?:home|root|tmp|var|opt|mnt|srv|usr|etc|data|work|workspace|scratch|Users|private|proc|dev)\b)",
        rf"(?<![\w:/.…])~[\w-]*(?P<path>/{_PART})",
        r"(?:\b[A-Za-z]:\\|\\\\)(?P<path>[^\s'\"<>|]*)",
    )
)
_ADDRESSES = (
    re.compile(r"[\w.+-]+@[A-Za-z][\w-]*(?:\.[\w-]+)*"),
    re.compile(r"(?<![\w.])[1-9]\d{0,2}(?:\.\d{1,3}){3}(?:(?::\d+)?|(?:/\d+)?)(?![\w.])"),
    re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{1,4}(?![\w:])"),
)
_PROCESS = re.compile(r"\b(pid|process|ppid|tid)(\s*[=:#]?\s*)\d+\b", re.I)


@lru_cache(maxsize=65536)
def without(text: str, hosts: tuple[str, ...] = ()) -> str:
    """The text without absolute paths (their last part stays), addresses, numbers of processes and these hosts."""
    for pattern in _PATHS:
        text = pattern.sub(lambda found: "…/" + re.split(r"[/\\]", found["path"].rstrip("/\\"))[-1], text)
    for pattern in _ADDRESSES:
        text = pattern.sub("(address)", text)
    text = _PROCESS.sub(r"\1\2(number)", text)
    for host in hosts:
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?:\.[A-Za-z][\w-]*)*(?![\w-])", "(host)", text)  # with its domain
    return text
