"""The matrix as one small document: what the HTML report holds, what ``reports/published`` keeps, and what a later run is compared with.

Schema ``truestep-matrix-1`` (docs/schema.md): texts once in a table, verdicts in columns, a finding once with everything that is known of it. Of a
verdict it keeps the check that says most, so 50,000 of them stay far below 10 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from truestep.fixtures.cell import Cell, CellError
from truestep.reports.results import Environment, Results, ResultsError, Row, Run
from truestep.reports.store import now
from truestep.reports.verdict import VERDICTS

SCHEMA = "truestep-matrix-1"
#: columns of ``environments[].verdicts``; the first three are indices (of cells, VERDICTS, texts), finding is -1 for none
COLUMNS = ("cell", "verdict", "reason", "finding", "check", "step", "figure", "bound", "noise", "milliseconds")
#: columns of ``cells``; all but id and ranks are indices of texts
FACETS = ("id", "framework", "family", "question", "objective", "model", "batch", "windows", "configuration", "device", "ranks")


class _Texts:
    """Every text once."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.index.setdefault(text, len(self.index))


def pack(results: Results, title: str = "truestep", *, generated: str | None = None) -> dict[str, Any]:
    """The document; plain data, ready for ``json.dumps``. generated: when it was written, where that is not now."""
    from truestep.reports.terminal import finding_key

    from truestep import __version__

    texts, cells, facts = _Texts(), dict[str, int](), dict[str, Row]()
    findings: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    numbers: dict[tuple[str, ...], int] = {}
    environments = []
    for number, one in enumerate(results.environments):
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for row in one.rows.values():
            cell = cells.setdefault(row["id"], len(cells))
            facts.setdefault(row["id"], row)
            found = -1
            if row["verdict"] in ("wrong", "by-design", "error", "timeout"):
                key = finding_key(row)
                findings.setdefault(key, []).append((number, row))
                found = numbers.setdefault(key, len(numbers))
            check = _telling(row)
            values = (
                cell, VERDICTS.index(row["verdict"]), texts(row.get("reason", "")), found, texts(check.get("name", "")), check.get("step", 0),
                *(_short(check.get(name, 0.0)) for name in ("figure", "bound", "noise")), round(row.get("milliseconds", 0.0)),
            )  # fmt: skip
            for name, value in zip(COLUMNS, values, strict=True):
                columns[name].append(value)
        environments.append({
            "name": one.name, "packages": dict(one.packages), "patched": one.patched, "complete": one.complete,
            "environment": dict(one.last.environment), "options": dict(one.last.options), "started": one.last.started,
            "finished": one.last.finished, "stand_ins": list(one.stand_ins), "verdicts": columns,
        })  # fmt: skip
    return {
        "schema": SCHEMA, "title": title, "generated": now() if generated is None else generated, "truestep": __version__, "verdicts": list(VERDICTS),
        "columns": list(COLUMNS), "facets": list(FACETS),
        "cells": [_facets(facts[name], texts) for name in cells],
        "findings": [_finding(some, cells) for some in findings.values()],
        "advisories": _advisories(results, list(findings.values())),
        "environments": environments, "problems": list(results.problems), "texts": list(texts.index),
    }  # fmt: skip


def parse(text: str, source: str) -> dict[str, Any]:
    """The document in a file's text; raises ResultsError with one line for anything else."""
    try:
        document = json.loads(text)
        schema = document["schema"]
    except (ValueError, KeyError, TypeError):
        raise ResultsError(f"{source} is not a matrix of truestep; make one with truestep report RESULTS --json FILE") from None
    if schema != SCHEMA:
        raise ResultsError(f"{source} has schema {schema!r}, this truestep reads {SCHEMA}: upgrade truestep")
    return dict(document)


def unpack(document: Mapping[str, Any], source: str = "") -> Results:
    """Results again, as far as the document keeps them: one check of a verdict, the diagnosis of those that stand for a finding."""
    environments = []
    try:
        texts = document["texts"]
        told = _told(document)
        for number, one in enumerate(document["environments"]):
            columns = one["verdicts"]
            rows = [
                _row(document, texts, number, dict(zip(columns, values, strict=True)), told) for values in zip(*columns.values(), strict=True)
            ]
            run = Run(
                f"{source}#{number}", one["name"], source, one["started"], one["finished"], one["complete"], cells=len(rows),
                environment={**one["environment"], "packages": one["packages"]}, options=one["options"], rows=tuple(rows),
            )  # fmt: skip
            environments.append(Environment(one["name"], (run,)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ResultsError(f"{source} is damaged ({type(error).__name__}: {error}); write it again with truestep report --json") from None
    return Results(tuple(environments), tuple(document.get("problems", ())))


#: (finding, environment, cell) -> the diagnosis of the cell that shows that finding in that environment
Told = Mapping[tuple[int, int, int], Mapping[str, Any] | None]


def _told(document: Mapping[str, Any]) -> Told:
    numbers = {cell[0]: number for number, cell in enumerate(document["cells"])}
    found = {}
    for finding, one in enumerate(document["findings"]):
        found[finding, one["environment"], numbers[one["id"]]] = one["diagnosis"]
        for other in one.get("elsewhere", ()):
            found[finding, other["environment"], other["cell"]] = other["diagnosis"] or one["diagnosis"]
    return found


def _row(document: Mapping[str, Any], texts: Sequence[str], environment: int, one: Mapping[str, Any], told: Told) -> Row:
    facets = dict(zip(document["facets"], document["cells"][one["cell"]], strict=True))
    finding = document["findings"][one["finding"]] if one["finding"] >= 0 else {}
    check = {"name": texts[one["check"]], "where": "", "widest": 0.0, "step": one["step"]}
    check |= {name: float("nan") if one[name] is None else one[name] for name in ("figure", "bound", "noise")}
    return {
        "id": facets["id"], "cell": _cell(facets, texts), "verdict": document["verdicts"][one["verdict"]],
        "family": texts[facets["family"]], "question": texts[facets["question"]], "reason": texts[one["reason"]],
        "checks": [check] if check["name"] else [], "diagnosis": _again(told.get((one["finding"], environment, one["cell"]))),
        "advisory": finding.get("advisory", ""), "besides": finding.get("besides", []), "fingerprint": finding.get("fingerprint", ""),
        "kinds": (finding.get("diagnosis") or {}).get("kinds", []),
        "versions": document["environments"][environment]["packages"], "milliseconds": one["milliseconds"],
    }  # fmt: skip


def _cell(facets: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The cell again; seed, size and epochs of its split are in its id alone."""
    windows = texts[facets["windows"]]
    knobs = dict(part.split(":", 1) for part in texts[facets["configuration"]].split(" ") if ":" in part)
    named = {name: texts[facets[name]] for name in ("framework", "model", "objective", "batch", "device")}
    split = {"world_size": facets["ranks"], "windows": [int(n) for n in windows.rstrip("u").split(".") if n], "uneven": windows.endswith("u")}
    return {**named, "split": split, "knobs": knobs}


def _telling(row: Row) -> Mapping[str, Any]:
    """The first red check, else the one that is nearest to its bound."""
    checks = row.get("checks", [])
    red = [c for c in checks if not c["figure"] <= c["bound"]]
    return red[0] if red else max(checks, key=lambda c: c["figure"] / c["bound"] if c["bound"] else 0.0, default={})


def _short(value: float) -> float | None:
    """Three digits are what is read; JSON has no NaN and no infinity, null stands for both."""
    return float(f"{value:.3g}") if value == value and abs(value) != float("inf") else None


def _facets(row: Row, texts: _Texts) -> list[Any]:
    """What a cell is, for filters and for the rows of the grid: its configuration is its knobs and its ranks."""
    cell, split = row["cell"], row["cell"].get("split", {})
    ranks = split.get("world_size", 1)
    knobs = [f"{name}:{value}" for name, value in cell.get("knobs", {}).items()]
    windows = ".".join(map(str, split.get("windows", []))) + "u" * bool(split.get("uneven"))
    return [row["id"], *(texts(str(t)) for t in (
        cell["framework"], row.get("family", ""), row.get("question", ""), cell.get("objective", ""), cell.get("model", ""), cell.get("batch", ""),
        windows, " ".join([*knobs, *([f"W{ranks}"] if ranks != 1 else [])]) or "defaults", cell.get("device", "cpu"),
    )), ranks]  # fmt: skip


def _finding(some: Sequence[tuple[int, Row]], cells: Mapping[str, int]) -> dict[str, Any]:
    """Once for all its cells: told by the simplest of them."""
    from truestep.reports.terminal import fingerprint

    environment, row = min(some, key=_simple)
    counts: dict[int, int] = {}
    for number, _ in some:
        counts[number] = counts.get(number, 0) + 1
    figures = [f for _, r in some if (f := _short(_telling(r).get("figure", 0.0))) is not None]
    return {
        "fingerprint": fingerprint(row), "verdict": row["verdict"], "advisory": row.get("advisory", ""), "besides": list(row.get("besides", ())),
        "framework": row["cell"]["framework"], "question": row.get("question", ""), "id": row["id"], "environment": environment,
        "reason": row.get("reason", ""), "diagnosis": _finite(row.get("diagnosis")), "checks": _plain(row.get("checks", [])), "cells": len(some),
        "worst": max(figures, default=None), "environments": {str(number): count for number, count in counts.items()},
        "command": f"truestep run {quote(row['id'])}" + (" --patch" if row.get("patches") else ""),
        "elsewhere": _elsewhere(some, environment, row, cells),
    }  # fmt: skip


def _simple(pair: tuple[int, Row]) -> tuple[Any, ...]:
    """The least is the row to show, of (environment, row)."""
    _, row = pair
    return (row.get("diagnosis") is None, len(row["cell"].get("knobs", {})), len(row["id"]), row["id"])


def _elsewhere(some: Sequence[tuple[int, Row]], shown: int, row: Row, cells: Mapping[str, int]) -> list[dict[str, Any]]:
    """What shows the finding in each other environment, so that it has words there too; no diagnosis where that of the finding says the same."""
    others: dict[int, tuple[int, Row]] = {}
    for pair in some:
        if pair[0] != shown and pair[1].get("diagnosis") is not None:
            others[pair[0]] = min(others.get(pair[0], pair), pair, key=_simple)
    told = _in_short(row.get("diagnosis"))
    said = ((number, cells[one["id"]], _in_short(one["diagnosis"])) for number, one in others.values())
    return [{"environment": number, "cell": cell, "diagnosis": None if short == told else short} for number, cell, short in said]


def _in_short(diagnosis: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Words and weights: the fewest fields that a finding can be shown with."""
    if diagnosis is None:
        return None
    weights = [[_short(w) for w in rank] for rank in diagnosis.get("weights", ())]
    return {"kinds": list(diagnosis.get("kinds", ())), "words": diagnosis.get("words", ""), "weights": weights,
            "unit": diagnosis.get("unit", ""), "sure": diagnosis.get("sure", "")}  # fmt: skip


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for both, as in ``_short``."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _again(diagnosis: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A diagnosis with its numbers: what ``_finite`` took out is NaN (in ``tokens`` a null is a token that was not looked for)."""
    if diagnosis is None:
        return None
    nan = float("nan")
    rows = [[nan if w is None else w for w in rank] for rank in diagnosis.get("weights", ())]
    samples = [nan if w is None else w for w in diagnosis.get("samples", ())]
    numbers = {name: nan if diagnosis.get(name, 0.0) is None else diagnosis.get(name, 0.0) for name in ("residual", "doubt", "condition")}
    return {**diagnosis, **numbers, "weights": rows, "samples": samples}


def _plain(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**check, **{name: _short(check[name]) for name in ("figure", "bound", "noise", "widest") if name in check}} for check in checks]


def _advisories(results: Results, findings: Sequence[Sequence[tuple[int, Row]]]) -> list[dict[str, Any]]:
    """Every advisory that explains a finding, with what was seen of it on each release: cells that were wrong, and right."""
    from truestep.patches import advisories

    seen = {row.get("advisory") for some in findings for _, row in some}
    return [
        {
            "id": a.id, "framework": a.framework, "title": a.title, "affected": [list(span) for span in a.affected], "by_design": a.by_design,
            "links": list(a.links), "patch": a.patch or "", "details": a.details, "cell": a.cell, "measured": dict(a.measured),
            "releases": _releases(a, results),
        }
        for a in advisories() if a.id in seen
    ]  # fmt: skip


def _releases(advisory: Any, results: Results) -> dict[str, list[int]]:
    """version -> [cells that it explains, cells of its trigger that were right]; what was judged with a patch applied is left out."""
    found: dict[str, list[int]] = {}
    concerned: dict[str, bool] = {}
    for environment, row in results:
        version = environment.packages.get(advisory.framework)
        if version is None or environment.patched:
            continue
        if row.get("advisory") == advisory.id:
            found.setdefault(version, [0, 0])[0] += 1
        elif row["verdict"] == "pass":
            if row["id"] not in concerned:
                concerned[row["id"]] = advisory.concerns({**_facts(row), **row.get("facts", {})})
            if concerned[row["id"]]:
                found.setdefault(version, [0, 0])[1] += 1
    from packaging.version import InvalidVersion, Version

    def order(version: str) -> tuple[bool, Any]:
        try:
            return True, Version(version)
        except InvalidVersion:
            return False, version

    return {version: found[version] for version in sorted(found, key=order)}


_FACTS: dict[str, Mapping[str, Any]] = {}


def _facts(row: Row) -> Mapping[str, Any]:
    """Of the row's cell; empty for a cell that this truestep no longer knows."""
    if row["id"] not in _FACTS:
        try:
            _FACTS[row["id"]] = Cell.from_json(row["cell"]).facts()
        except CellError:
            _FACTS[row["id"]] = {}
    return _FACTS[row["id"]]
