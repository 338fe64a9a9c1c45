"""action.yml, its sample repository and docs/gate.md: shape, hostile inputs, annotations; nothing is installed, no step of a framework is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import composite
import pages
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truestep.reports.annotations import LEVELS, MOST, Annotation, annotate, render
from truestep.reports.baseline import Baseline, Entry
from truestep.reports.gate import CLEAN, FINDINGS, UNUSABLE, Outcome

ROOT = Path(__file__).parent.parent
SAMPLE = Path(__file__).parent / "downstream"
ACTION = composite.load(ROOT / "action.yml")
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
PAGE = pages.text_of("docs/gate.md")


# --- the action ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "file", "more"),
    [
        ("vendor.github-actions", ROOT / "action.yml", []),
        ("vendor.github-workflows", SAMPLE / ".github" / "workflows" / "truestep.yml", []),
        ("vendor.gitlab-ci", SAMPLE / ".gitlab-ci.yml", ["--data-transform", "gitlab-ci"]),
    ],
)
def test_files_fit_the_schemas_of_those_who_read_them(schema: str, file: Path, more: list[str]) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed: pip install .[test]")
    done = subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *more, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_text_from_outside_becomes_part_of_a_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert scripts and not [script for script in scripts if "${{" in script]
    assert not [script for script in scripts if re.search(r"\beval\b|\bbash -c\b|GITHUB_ENV|GITHUB_PATH", script)]


def test_every_input_is_used_and_every_step_has_a_name() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == set(ACTION["inputs"])
    assert len({step["name"] for step in STEPS}) == len(STEPS)
    assert all("default" in one and one["description"] for one in ACTION["inputs"].values())


def test_other_actions_are_pinned_to_a_major_version_that_the_page_names() -> None:
    uses = [step["uses"] for step in STEPS if "uses" in step]
    assert len(uses) == 5 and all(re.fullmatch(r"(actions|github)/[\w/-]+@v\d+", one) for one in uses)
    assert [one for one in uses if f"`{one}`" not in PAGE] == []


REFUSED = {
    "quick": "yes", "patch": "True; touch pwned", "upload-sarif": "", "fail-on": "$(touch pwned)", "shard": "1/2;touch pwned",
    "artifact": "a/b", "results-dir": "a\nfindings=0", "probes": "truestep.probes --patch",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_that_cannot_be_used_is_refused_before_anything_is_done(name: str, tmp_path: Path) -> None:
    job = composite.run(ROOT / "action.yml", tmp_path, tmp_path / "temp", {name: REFUSED[name]}, {})
    assert list(job.codes) == ["Check the inputs", "Pass or fail"] and job.code == 2 and job.used == {}
    assert job.commands[0].startswith(f"::error title=truestep::input {name} ")
    assert job.outputs["outcome"] == "unusable" and not list(tmp_path.rglob("pwned"))


PIP = f"""#!{sys.executable}
import os, pathlib, sys
if "-c" in sys.argv:
    sys.exit("import torch" in sys.argv and not os.environ.get("TORCH_IS_HERE"))
if "install" in sys.argv:
    print("pip:", *sys.argv[4:], sep="|")
    for name in sys.argv:
        if "truestep-" in name and name.startswith("--requirement="):
            print("lines:", *pathlib.Path(name.partition("=")[2]).read_text().splitlines(), sep="|")
"""
PINS = "# ours\n--extra-index-url https://example.org/cpu\ntorchvision\n{torch}DeepSpeed==0.18.9 \\\n    --hash=sha256:0123\ndeepspeed-kernels\n"
FIRST = "--extra-index-url https://example.org/cpu"


@pytest.mark.parametrize(
    ("torch", "here", "index", "first"),
    [
        ("", "", None, [["--index-url=https://download.pytorch.org/whl/cpu", "--", "torch"]]),
        ("", "", "", [["--", "torch"]]),
        ("", "1", None, []),
        ("torch==2.5.1  # the cluster's\n", "1", None, [["--requirement={temp}/truestep-torch.txt"], [FIRST, "torch==2.5.1  # the cluster's"]]),
    ],
)
def test_torch_comes_first_and_deepspeed_without_build_isolation(torch: str, here: str, index: str | None, first: list[list[str]], tmp_path: Path) -> None:
    """``python`` is a stand-in that prints what pip was asked for."""
    binaries, work, temp = (tmp_path / name for name in ("bin", "work", "temp"))
    binaries.mkdir()
    work.mkdir()
    for name in ("python", "truestep"):
        (binaries / name).write_text(PIP)
        (binaries / name).chmod(0o755)
    (work / "my pins.txt").write_text(PINS.format(torch=torch))
    (work / "more.txt").write_text("numpy")
    inputs = {"requirements": "my pins.txt\r\nmore.txt\n"} | ({} if index is None else {"torch-index": index})
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    job = composite.run(ROOT / "action.yml", work, temp, inputs, {"PATH": path, "TORCH_IS_HERE": here})
    assert job.codes["Install"] == 0, job.log
    asked = [line.split("|")[1:] for line in job.logs["Install"].splitlines() if line.startswith(("pip:", "lines:"))]
    assert asked == [
        *[[text.format(temp=temp) for text in one] for one in first],
        ["setuptools>=77", "wheel", "ninja", "numpy"],
        ["--no-build-isolation", f"--requirement={temp}/truestep-deepspeed.txt"],
        [FIRST, "DeepSpeed==0.18.9 "],
        ["--requirement=my pins.txt", "--requirement=more.txt"],
        ["--", str(ROOT)],
    ]


HOSTILE = "x'\"`touch pwned`$(touch pwned);touch pwned\\ & #\n::error::obeyed"


ECHO = f"""#!{sys.executable}
import json, sys
print("deadbeef" if "-c" in sys.argv else json.dumps(sys.argv[1:]))
if "pytest" in sys.argv:
    print(sys.argv[-1])
"""


def test_hostile_inputs_reach_pytest_as_they_are(tmp_path: Path) -> None:
    """``python`` and ``truestep`` are stand-ins that print what they were called with."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("python", "truestep"):
        (binaries / name).write_text(ECHO)
        (binaries / name).chmod(0o755)
    (tmp_path / "work").mkdir()
    inputs = {
        "select": HOSTILE, "markers": HOSTILE, "extra": f"-n2\n{HOSTILE}", "baseline": HOSTILE, "requirements": "", "torch": HOSTILE, "truestep": HOSTILE,
        "probes": "truestep.probes.test_offload\ntruestep.probes.test_split", "shard": "1/2",
    }  # fmt: skip
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    job = composite.run(ROOT / "action.yml", tmp_path / "work", tmp_path / "temp", inputs, {"PATH": path})
    assert job.outputs["outcome"] == "unusable" and job.codes["Run the probes"] == 0, job.log
    told = [json.loads(line) for line in job.logs["Run the probes"].splitlines() if line.startswith("[")]
    first, second = HOSTILE.split("\n")
    assert told == [[
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--truestep-results={tmp_path}/work/truestep-results/truestep.jsonl",
        "--pyargs", "truestep.probes.test_offload", "--pyargs", "truestep.probes.test_split", f"-k{HOSTILE}", f"-m{HOSTILE}",
        "--truestep-shard=1/2", f"--truestep-baseline={tmp_path}/work/{HOSTILE}", "-n2", first, second,
    ]]  # fmt: skip
    assert json.dumps(["-m", "pip", "install", "--", HOSTILE]) in job.logs["Install"]
    assert "\n::error::obeyed\n" in job.logs["Run the probes"]
    assert not list(tmp_path.rglob("pwned")) and not [command for command in job.commands if "obeyed" in command]


def test_what_is_printed_between_the_stops_is_no_command() -> None:
    job = composite.Job(codes={"a": 0}, logs={"a": "::stop-commands::t1\n::error::no\n::t1::\n::error::yes\n"})
    assert job.commands == ["::error::yes"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.a == 'TRUE'", True),
        ("inputs.a != 'true'", False),
        ("inputs.none || 'x'", "x"),
        ("steps.one.outputs.two && inputs.a", "true"),
        ("!cancelled() && inputs.none != ''", False),
    ],
)
def test_expressions_are_read_as_a_runner_does(expression: str, value: Any) -> None:
    context = {"inputs": {"a": "true", "none": ""}, "steps": {"one": {"outputs": {"two": "2"}}}}
    assert composite.evaluate(expression, context) == value
    with pytest.raises(ValueError, match="not an expression"):
        composite.evaluate("toJson(inputs)", context)


# --- annotations ---------------------------------------------------------------------------------------------------------


def log_of(*results: dict[str, Any]) -> dict[str, Any]:
    return {"runs": [{"results": list(results)}]}


def result(rule: str, level: str = "error", file: str = "requirements.txt", **more: Any) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": quote(file), "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 3}}
    return {
        "ruleId": rule, "level": level, "message": {"text": f"{rule} is wrong"}, "locations": [{"physicalLocation": place}],
        "properties": {"environment": "here", "cells": 1, "ids": [f"cell-{rule}"]}, **more,
    }  # fmt: skip


def unescaped(text: str) -> str:
    """The runner's way back."""
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), st.sampled_from(LEVELS))
def test_an_annotation_is_one_line_and_reads_back(title: str, message: str, level: str) -> None:
    line = str(Annotation(level, title, message, "a, b:c%/é.txt", 7))
    assert len(re.split(r"[\r\n]", line)) == 1
    found = re.fullmatch(r"::(\w+) file=([^,:]*),line=7,title=([^,:]*)::(.*)", line)
    assert found and found[1] == level and unescaped(found[2]) == "a, b:c%/é.txt"
    shown = ["".join(c if c.isprintable() or c in "\r\n" else "�" for c in text) for text in (title, message)]
    assert [unescaped(found[3]), unescaped(found[4])] == shown


def test_levels_say_what_fails_the_run() -> None:
    log = log_of(result("by-design", "note"), result("borne", suppressions=[{}]), result("old"), result("new"), result("failed", "warning"))
    told = {one.title: one.level for one in annotate(log, Outcome(FINDINGS))}
    assert told == {"old": "error", "new": "error", "failed": "error", "borne": "notice", "by-design": "notice"}
    told = {one.title: one.level for one in annotate(log, Outcome(FINDINGS), new={("here", "cell-new")})}
    assert told == {"new": "error", "old": "warning", "failed": "warning", "borne": "notice", "by-design": "notice"}
    assert "error" not in {one.level for one in annotate(log, Outcome(CLEAN))}
    (only,) = annotate(log_of(), Outcome(UNUSABLE, ("nothing was judged",)))
    assert str(only) == "::error title=truestep could not judge::nothing was judged"


def test_entries_that_have_to_go_are_shown_in_the_baseline(tmp_path: Path) -> None:
    over = Entry("deepspeed-7967", ("cell-b",), "a ticket", date(2020, 1, 1))
    right = Entry("trl-1", ("cell-a", "cell-c"), "another", date(2999, 1, 1))
    file = tmp_path / "sub" / "accepted.json"
    file.parent.mkdir()
    file.write_text(Baseline((over, right)).to_json(), encoding="utf-8")
    lines = file.read_text().splitlines()
    first, second = annotate(log_of(), Outcome(FINDINGS, expired=(over,), stale=(right,)), baseline=file, root=tmp_path)
    assert (first.level, first.file, lines[first.line - 1].strip()) == ("error", "sub/accepted.json", '"cell-b"')
    assert (second.file, lines[second.line - 1].strip()) == ("sub/accepted.json", '"cell-a",') and "cell-a, cell-c" in second.message


def test_of_each_level_no_more_than_are_shown() -> None:
    lines = render([Annotation("error", "a", str(n)) for n in range(MOST + 5)] + [Annotation("notice", "b", "c")] * MOST).splitlines()
    assert len(lines) == 2 * MOST and lines[MOST - 1].startswith("::error title=truestep::and 6 more") and "more" not in lines[-1]


# --- the page ------------------------------------------------------------------------------------------------------------


def table(head: str) -> dict[str, str]:
    """First column, without what stands behind the name in it, to the whole row; of the table with this head."""
    body = PAGE.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    rows = [line for line in body.splitlines()[2:] if line.startswith("|")]
    return {name: row for row in rows for name in re.findall(r"`([\w-]+)[^`]*`", row.split(" | ")[0])}


def test_every_option_of_pytest_is_on_the_page() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    group = done.stdout.partition("does the framework take the optimizer step")[2].partition("\n\n")[0]
    offered = set(re.findall(r"^  (--[\w-]+)", group, re.M))
    assert len(offered) > 10 and set(table("option | means | default")) == offered


def test_every_marker_is_on_the_page_or_is_a_family() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "--markers"], cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    offered = set(re.findall(r"^@pytest\.mark\.(\w+):.*truestep", done.stdout, re.M)) | {"truestep"}
    families = {path.stem.removeprefix("test_") for path in (ROOT / "probes").glob("test_*.py")}
    frameworks = set(re.findall(r"`(\w+)`", PAGE.partition("Frameworks: ")[2].partition(".")[0]))
    named = set(table("marker | cells"))
    assert offered == named | frameworks | families and not named & families


def test_every_input_and_output_is_on_the_page() -> None:
    for kind, head in (("inputs", "input | means | default"), ("outputs", "output | means")):
        rows = table(head)
        assert list(rows) == list(ACTION[kind])
        for name, one in ACTION[kind].items():
            assert one["description"] in rows[name]
            assert not one.get("default") or rows[name].endswith(f"| `{one['default']}` |")


def test_the_recipes_are_the_files_of_the_sample_and_ask_for_inputs_that_there_are() -> None:
    shown = {found["path"]: body for info, body in pages.blocks(PAGE) if (found := pages.TITLE.fullmatch(info))}
    assert set(shown) == {".github/workflows/truestep.yml", ".gitlab-ci.yml", "check.sh"}
    assert [path for path, body in shown.items() if (SAMPLE / path).read_text(encoding="utf-8") != body] == []
    (step,) = [s for s in composite.load(SAMPLE / ".github/workflows/truestep.yml")["jobs"]["step"]["steps"] if "truestep@" in s["uses"]]
    assert set(step["with"]) <= set(ACTION["inputs"])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []
