"""JUnit XML in the shape that pytest writes (xunit2): a test suite for each environment, a test case for each cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from truestep.reports.baseline import Accepted, Expired
from truestep.reports.findings import verdict_of
from truestep.reports.gate import Outcome
from truestep.reports.results import Environment, Results, Row
from truestep.reports.terminal import finding
from truestep.reports.verdict import ERROR, PASS, TIMEOUT, WRONG

#: what XML 1.0 cannot hold at all: https://www.w3.org/TR/xml/#charsets
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(results: Results, outcome: Outcome, title: str = "truestep") -> str:
    """A cell that is not judged is skipped with its reason; an environment without any answer has a case of its own that fails."""
    top = ET.Element("testsuites", {"name": clean(title)})
    for environment in results.environments:
        _suite(top, environment, outcome)
    if not results.environments:
        _empty(ET.SubElement(top, "testsuite", _totals("truestep", 1, 1, 0, 0.0, "")), "there is no result")
    ET.indent(top, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)


def _suite(top: ET.Element, environment: Environment, outcome: Outcome) -> None:
    rows = list(environment.rows.values())
    silent = next((text for text in (*outcome.reasons, *outcome.notes) if text.startswith(f"{environment.name}: ")), "")
    kinds = [_kind(environment, row, outcome)[0] for row in rows]
    suite = ET.SubElement(top, "testsuite", _totals(
        clean(environment.name), len(rows) + bool(silent), kinds.count("error") + bool(silent), kinds.count("failure"),
        sum(row.get("milliseconds", 0.0) for row in rows) / 1000, environment.last.started, kinds.count("skipped"),
    ))  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(environment):
        ET.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})
    for row in rows:
        _case(suite, environment, row, outcome)
    if silent:
        _empty(suite, silent)


def _totals(name: str, tests: int, errors: int, failures: int, seconds: float, started: str, skipped: int = 0) -> dict[str, str]:
    told = {"name": name, "errors": str(errors), "failures": str(failures), "skipped": str(skipped), "tests": str(tests), "time": f"{seconds:.3f}"}
    return told | ({"timestamp": clean(started)} if started else {})


def _empty(suite: ET.Element, reason: str) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": "truestep", "name": "complete", "time": "0.000"})
    ET.SubElement(case, "error", {"message": clean(reason)}).text = clean(reason)


def _case(suite: ET.Element, environment: Environment, row: Row, outcome: Outcome) -> None:
    case = ET.SubElement(suite, "testcase", {
        "classname": clean(f"{row['cell']['framework']}.{row.get('family') or 'run'}"), "name": clean(row["id"]),
        "time": f"{row.get('milliseconds', 0.0) / 1000:.3f}",
    })  # fmt: skip
    kind, message, text = _kind(environment, row, outcome)
    if kind:
        ET.SubElement(case, kind, {**({"type": clean(row["verdict"])} if kind == "skipped" else {}), "message": clean(message)}).text = clean(text)


def _kind(environment: Environment, row: Row, outcome: Outcome) -> tuple[str, str, str]:
    """The element, its message and its text; "" for a cell that is right."""
    verdict, reason = row["verdict"], str(row.get("reason", ""))
    if verdict == PASS:
        return "", "", ""
    if verdict not in (WRONG, ERROR, TIMEOUT):
        why = f"{row['advisory']} {row.get('link', '')}".strip() if row.get("advisory") else reason
        return "skipped", f"{verdict}: {why}", reason
    text = "\n".join(finding(str(row.get("question", "")), verdict_of(row)))
    said = outcome.accepted.get((environment.name, row["id"]))
    if isinstance(said, Accepted):
        return "skipped", str(said), text
    if isinstance(said, Expired):
        reason = f"{said}: {reason}"
    return ("failure" if verdict == WRONG else "error"), f"{verdict}: {reason}", text


def _properties(environment: Environment) -> Iterator[tuple[str, str]]:
    """The snapshot, flat: ``packages.deepspeed = 0.19.8``."""
    yield from _flat("", environment.last.environment)
    yield from _flat("options.", environment.last.options)
    for number, text in enumerate(environment.stand_ins, start=1):
        yield f"stand-in.{number}", text


def _flat(prefix: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", str(value)
