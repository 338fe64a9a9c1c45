"""SARIF 2.1.0: findings in the file and line that pins the version, for code scanning and editors.

A rule is a bug; a result is a finding in one environment (what a baseline accepts of it is a result of its own, suppressed). Standard:
https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; what GitHub reads of it: its documentation, "SARIF support for code scanning".
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from truestep.reports.baseline import Expired
from truestep.reports.findings import Finding, counts, figure, findings, judged, verdict_of
from truestep.reports.gate import Outcome
from truestep.reports.locate import Place, locate
from truestep.reports.results import Environment, Results, Row
from truestep.reports.terminal import finding as told
from truestep.reports.verdict import BY_DESIGN, WRONG

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
SHORT, LONG = 250, 1000  # characters: GitHub cuts titles and descriptions at 1,024
TAGS, IDS = 10, 50


def document(results: Results, outcome: Outcome, pinned: Sequence[Path], root: Path) -> dict[str, Any]:
    """The SARIF log; plain data without NaN.

    pinned : files that pin versions; without any, results are in the results file. root: of the repository: URIs are relative to it
    """
    some = findings(results)
    rules: dict[str, Finding] = {}
    for one in some:
        rules.setdefault(rule_of(one), one)
    numbers = {bug: number for number, bug in enumerate(rules)}
    from truestep import __version__

    environments = {one.name: one for one in results.environments}
    entries = []
    places: dict[tuple[str, str], Place | None] = {}
    for one in some:
        for name, rows in one.where.items():
            package = one.advisory.framework if one.advisory is not None else one.framework
            pin = (package, environments[name].packages.get(package, ""))
            if pin not in places:
                places[pin] = locate(*pin, pinned)
            accepted = [row for row in rows if outcome.accepts(name, row["id"])]
            left = [row for row in rows if not outcome.accepts(name, row["id"])]
            for part in (left, accepted):
                if part:
                    entries.append(_result(one, environments[name], part, outcome, numbers[rule_of(one)], places[pin], root))
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "truestep", "version": __version__, "semanticVersion": __version__, "rules": [_rule(one) for one in rules.values()],
            }},
            "automationDetails": {"id": "truestep/"},
            "originalUriBaseIds": {ROOT: {"description": {"text": "the root of the repository that pins the versions"}}},
            "invocations": [_invocation(results, outcome)],
            "columnKind": "unicodeCodePoints",
            "results": entries,
        }],
    }  # fmt: skip


def render(log: Mapping[str, Any]) -> str:
    """A document as text."""
    return json.dumps(log, indent=1, allow_nan=False) + "\n"


def _invocation(results: Results, outcome: Outcome) -> dict[str, Any]:
    """Not successful where something could not be judged: an empty list of results is then no good news."""
    answers = [judged(counts(environment.rows.values())) for environment in results.environments]
    notices = [{"level": "error", "message": {"text": _cut(text, LONG)}} for text in (*outcome.reasons, *outcome.notes)]
    notices += [{"level": "warning", "message": {"text": _cut(text, LONG)}} for text in results.problems]
    return {
        "executionSuccessful": bool(answers) and all(answers), "exitCode": outcome.code,
        "toolExecutionNotifications": notices,
    }  # fmt: skip


def rule_of(one: Finding) -> str:
    """A bug that is not known is one framework's: ``trl/unknown:scaled``."""
    return one.bug if one.advisory is not None else f"{one.framework}/{one.bug}"


def _level(verdict: str) -> str:
    return "error" if verdict == WRONG else "note" if verdict == BY_DESIGN else "warning"


def _rule(one: Finding) -> dict[str, Any]:
    advisory, kinds = one.advisory, list((one.row.get("diagnosis") or {}).get("kinds", ()))
    lines, marked = [], []
    for name, text in _help(one):
        lines.append(f"{name}: {text}")
        marked.append(f"**{name}**: {_marked(text)}")
    rule: dict[str, Any] = {
        "id": rule_of(one),
        "name": "".join(part.capitalize() for part in re.split(r"[^0-9A-Za-z]+", rule_of(one))),
        "shortDescription": {"text": _cut(one.title, SHORT)},
        "fullDescription": {"text": _cut(advisory.details or one.title if advisory else one.title, LONG)},
        "help": {"text": "\n".join(lines), "markdown": "\n\n".join(marked)},
        "defaultConfiguration": {"level": _level(one.verdict)},
        "properties": {
            "tags": [one.framework, *kinds][:TAGS], "precision": "very-high",
            "problem.severity": {"error": "error", "warning": "warning", "note": "recommendation"}[_level(one.verdict)],
        },
    }  # fmt: skip
    if advisory and (links := [link for link in advisory.links if link.startswith(("https://", "http://"))]):
        rule["helpUri"] = links[0]
    return rule


def _help(one: Finding) -> list[tuple[str, str]]:
    advisory = one.advisory
    if advisory is None:
        return [("what was done", one.words), ("known", "no advisory explains this; it looks new"), ("standalone script", f"truestep repro {one.row['id']}")]
    fixed = ", ".join(f"fixed in {end}" if end else "not fixed in any release" for _, end in advisory.affected)
    parts = [("what was done", one.words), ("releases", fixed if not advisory.by_design else f"since {advisory.affected[0][0]}")]
    if advisory.details:
        parts.append(("details", advisory.details))
    if advisory.patch:
        upgrade = "upgrade, or " if any(end for _, end in advisory.affected[-1:]) else ""
        parts.append(("cure", f"{upgrade}call truestep.patch() before training"))
    return [*parts, *(("see", link) for link in advisory.links), ("reproduce", one.command)]


def _result(
    one: Finding, environment: Environment, rows: Sequence[Row], outcome: Outcome, rule: int, place: Place | None, root: Path
) -> dict[str, Any]:
    row = min(rows, key=lambda r: (r["id"] != one.row["id"], len(r["id"]), r["id"]))
    text = told(str(row.get("question", "")), verdict_of(row), len(rows))
    known = f"{one.framework} {environment.packages.get(one.framework, '')}".strip()
    said = dict.fromkeys(str(found) for r in rows if isinstance(found := outcome.accepted.get((environment.name, r["id"])), Expired))
    worst = max((f for r in rows if (f := figure(r)) is not None and math.isfinite(f)), default=None)
    result: dict[str, Any] = {
        "ruleId": rule_of(one),
        "ruleIndex": rule,
        "level": _level(one.verdict),
        "message": {"text": "\n".join([_cut(f"{known} ({environment.name}): {one.title}: {one.words}", LONG), "", *text, *said])},
        "locations": [{"physicalLocation": _location(place, environment, root)}],
        "partialFingerprints": {"truestepFinding/v1": _digest(one.bug, row["id"]), "truestepEnvironment/v1": _digest(environment.name)},
        "properties": {
            "environment": environment.name, "verdict": one.verdict, "command": one.command,
            "cells": len(rows), "ids": [r["id"] for r in rows[:IDS]],
        },
    }
    if worst is not None:
        result["properties"]["relativeError"] = worst
    accepted = dict.fromkeys(str(found) for r in rows if (found := outcome.accepts(environment.name, r["id"])))
    if accepted:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": "; ".join(accepted)}]
    return result


def _location(place: Place | None, environment: Environment, root: Path) -> Mapping[str, Any]:
    """GitHub refuses a whole file for one result without a location: what pins nothing is in the results themselves."""
    path = place.path if place is not None else Path(environment.last.source.partition("#")[0] or "truestep-results.jsonl")
    region: dict[str, Any] = {"startLine": place.line if place is not None else 1}
    if place is not None and place.exact:
        region["snippet"] = {"text": place.text}
    return {"artifactLocation": artifact(path, root), "region": region}


def artifact(path: Path, root: Path) -> dict[str, str]:
    """Relative to the repository where it is inside, else absolute."""
    whole = path.resolve()
    try:
        return {"uri": quote(whole.relative_to(root.resolve()).as_posix()), "uriBaseId": ROOT}
    except ValueError:
        return {"uri": whole.as_uri()}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _cut(text: str, most: int) -> str:
    text = text or "no text"
    return text if len(text) <= most else text[: most - 1] + "…"


def _marked(text: str) -> str:
    from truestep.reports.summary import escaped

    return f"<{text}>" if text.startswith(("https://", "http://")) and not set(text) & set("<> \n") else escaped(text)
