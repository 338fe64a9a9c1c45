"""The gate for other repositories: action.yml and check.sh in a copy of a user's repository (tests/downstream), with truestep from a wheel.

The steps of the action are run by hand (tests/composite.py). Two installed environments: the DeepSpeed that is here, and 0.18.9, which has
deepspeed-7967. About 90 s of computing, most of it real cells; needs a package index for 0.18.9.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import composite
import pages
import pytest
from truestep.patches import advisories

from truestep import __version__

ROOT = Path(__file__).parent.parent
ACTION = ROOT / "action.yml"
SAMPLE = Path(__file__).parent / "downstream"
WORKFLOW = SAMPLE / ".github" / "workflows" / "truestep.yml"
MARKED = f"{__version__}+gate"
AFFECTED = "0.18.9"
BUG = "deepspeed-7967"
CELL = "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu"
HOSTILE = "a b'\"`touch pwned`$(touch pwned);touch pwned\\"
BEFORE: dict[str, dict[str, str]] = {"Find the caches": {}, "Install": {}}  # steps that were run once, when the environment was made
UNREACHABLE = ("No matching distribution found", "Could not find a version")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with a release of DeepSpeed and truestep's wheel, made by the action's own steps; variables activate it."""

    variables: Mapping[str, str]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a version of its own: pip does not put one beside the checkout of the same version that the tests run on."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("src", "probes", "fixtures", "patches", "reports"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "published"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pyproject.toml", "src/truestep/__init__.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert text.count(f'version{"__" * name.endswith(".py")} = "{__version__}"') == 1
        (source / name).write_text(text.replace(f'"{__version__}"', f'"{MARKED}"'), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    shutil.rmtree(source)
    (found,) = folder.glob("truestep-*.whl")
    return found


def sample(folder: Path, deepspeed: str = AFFECTED) -> Path:
    """A copy of the user's repository that pins this release."""
    shutil.copytree(SAMPLE, folder)
    (folder / ".git").mkdir()
    pins = folder / "requirements.txt"
    pins.write_text(pins.read_text(encoding="utf-8").replace(f"=={AFFECTED}", f"=={deepspeed}"), encoding="utf-8")
    return folder


def accept(repository: Path, until: date) -> None:
    """Its baseline with another last day: the clock is not touched."""
    path = repository / "truestep-baseline.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for entry in data["entries"]:
        entry["expires"] = until.isoformat()
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def asked() -> dict[str, str]:
    """What the sample's workflow hands to the action, but for its baseline."""
    (step,) = [s for s in composite.load(WORKFLOW)["jobs"]["step"]["steps"] if "truestep@" in s["uses"]]
    return {name: text for name, text in step["with"].items() if name not in ("baseline", "upload-sarif")}


def made(folder: Path, deepspeed: str, wheel: Path) -> Environment:
    active = {k: v for k, v in pages.environment(folder / "venv").items() if k == "PATH"}
    given = {name: {"code": "0"} for name in ("Run the probes", "Report", "Pass or fail")}
    inputs = {**asked(), "truestep": str(wheel)}
    job = composite.run(ACTION, sample(folder / "repository", deepspeed), folder / "temp", inputs, active, given)
    if job.code and any(text in job.log for text in UNREACHABLE):
        pytest.skip(f"deepspeed {deepspeed} cannot be installed here: {job.log[-300:]}")
    assert job.code == 0, job.log[-3000:]
    return Environment({**active, "XDG_CACHE_HOME": str(folder / "cache")})


@pytest.fixture(scope="session")
def fixed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    try:
        release = installed("deepspeed")
    except ModuleNotFoundError:
        pytest.skip("deepspeed is not installed: see README, tests")
    if next(one for one in advisories("deepspeed") if one.id == BUG).affects(release):
        pytest.skip(f"deepspeed {release} is installed, which has {BUG}; these tests need a newer one beside {AFFECTED}")
    return made(tmp_path_factory.mktemp("fixed"), release, wheel)


@pytest.fixture(scope="session")
def affected(tmp_path_factory: pytest.TempPathFactory, fixed: Environment, wheel: Path) -> Environment:
    return made(tmp_path_factory.mktemp("affected"), AFFECTED, wheel)


Gate = Callable[..., composite.Job]


@pytest.fixture(scope="session")
def gate() -> Gate:
    def run(environment: Environment, repository: Path, given: Mapping[str, Mapping[str, str]] | None = None, **inputs: str) -> composite.Job:
        """The action, but for its installation, which was made before."""
        wanted = {**asked(), **{name.replace("_", "-"): text for name, text in inputs.items()}}
        return composite.run(ACTION, repository, repository.parent / "temp", wanted, environment.variables, {**BEFORE, **(given or {})})

    return run


@pytest.fixture(scope="session")
def red(tmp_path_factory: pytest.TempPathFactory, affected: Environment, gate: Gate) -> tuple[Path, composite.Job]:
    repository = sample(tmp_path_factory.mktemp("red") / "repository")
    return repository, gate(affected, repository, upload_sarif="true")


@pytest.fixture(scope="session")
def green(tmp_path_factory: pytest.TempPathFactory, fixed: Environment, gate: Gate) -> tuple[Path, composite.Job]:
    repository = sample(tmp_path_factory.mktemp("green") / "repository", installed("deepspeed"))
    (repository / "conftest.py").write_text("raise RuntimeError('the gate runs code of the repository')\n")
    (repository / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (repository / "json.py").write_text("raise RuntimeError('the gate imports modules of the repository')\n")
    return repository, gate(fixed, repository, upload_sarif="true")


def sarif_of(repository: Path, folder: str = "truestep-results") -> list[Any]:
    log = json.loads((repository / folder / "truestep.sarif").read_text(encoding="utf-8"))
    assert log["runs"][0]["tool"]["driver"]["version"] == MARKED  # the wheel has judged, not the checkout
    results: list[Any] = log["runs"][0]["results"]
    return results


# --- the steps of the action ---------------------------------------------------------------------------------------------


def test_a_fixed_release_is_green(green: tuple[Path, composite.Job]) -> None:
    repository, job = green
    assert job.code == 0 and job.outputs["outcome"] == "clean" and job.outputs["findings"] == "0", job.log[-3000:]
    assert job.summary.startswith("## ✅") and f"{BUG}" not in job.summary
    rows = [json.loads(line) for line in (repository / "truestep-results" / "truestep.jsonl").read_text().splitlines()]
    judged = [row for row in rows if row["record"] == "verdict"]
    assert CELL in [row["id"] for row in judged] and {row["verdict"] for row in judged} == {"pass"} and 3 <= len(judged) <= 10
    assert {row["versions"]["deepspeed"] for row in judged} == {installed("deepspeed")}
    assert sarif_of(repository) == [] and job.commands == []


def test_an_affected_release_is_red_at_the_line_that_pins_it(red: tuple[Path, composite.Job]) -> None:
    repository, job = red
    assert job.code == job.codes["Pass or fail"] == 1, job.log[-3000:]
    assert (job.outputs["outcome"], job.outputs["findings"]) == ("findings", "1")
    assert job.summary.startswith("## ❌") and f"[{BUG}]" in job.summary
    pins = (repository / "requirements.txt").read_text(encoding="utf-8").splitlines()
    line = 1 + next(n for n, text in enumerate(pins) if text.startswith("deepspeed=="))
    (found,) = sarif_of(repository)
    place = found["locations"][0]["physicalLocation"]
    assert (found["ruleId"], found["level"]) == (BUG, "error")
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("requirements.txt", line)
    (command,) = job.commands
    assert command.startswith(f"::error file=requirements.txt,line={line},title={BUG}::") and AFFECTED in command and "has weight 0" in command
    report = Path(job.outputs["report"])
    assert report.is_relative_to(repository) and BUG in report.read_text(encoding="utf-8")


def test_reports_are_sent_before_the_run_fails(red: tuple[Path, composite.Job]) -> None:
    repository, job = red
    names = [step["name"] for step in composite.load(ACTION)["runs"]["steps"]]
    assert names[-1] == "Pass or fail" and list(job.codes)[-1] == names[-1]
    folder = repository / "truestep-results"
    assert job.used["Keep the report"][1] == {"name": "truestep", "path": str(folder), "if-no-files-found": "ignore"}
    assert job.used["Send the findings to code scanning"][1] == {"sarif_file": str(folder / "truestep.sarif"), "category": "truestep"}
    assert {"report.html", "matrix.json", "junit.xml", "truestep.sarif", "truestep.jsonl"} <= {path.name for path in folder.iterdir()}


def test_the_affected_release_is_green_again_with_the_patches(affected: Environment, gate: Gate, tmp_path: Path) -> None:
    """In a folder and with a file that only robust scripts survive."""
    repository = sample(tmp_path / "my repository")
    (repository / "requirements.txt").rename(repository / HOSTILE)
    job = gate(affected, repository, patch="true", results_dir=f"out {HOSTILE}", requirements=f"\n{HOSTILE}\n")
    assert job.code == 0 and job.outputs["outcome"] == "clean", job.log[-3000:]
    assert sarif_of(repository, f"out {HOSTILE}") == []
    rows = [json.loads(line) for line in (repository / f"out {HOSTILE}" / "truestep.jsonl").read_text().splitlines()]
    assert {any(f"applied {BUG}" in line for line in row["patches"]) for row in rows if row["record"] == "verdict"} == {True}
    assert not list(tmp_path.rglob("pwned"))


def test_an_accepted_finding_is_green_until_its_day(affected: Environment, gate: Gate, tmp_path: Path) -> None:
    repository = sample(tmp_path / "repository")
    accept(repository, date.today() + timedelta(days=30))
    job = gate(affected, repository, baseline="truestep-baseline.json", extra="-n2")
    assert job.code == 0 and (job.outputs["outcome"], job.outputs["findings"]) == ("clean", "0"), job.log[-3000:]
    (found,) = sarif_of(repository)
    assert found["suppressions"] and "### Accepted" in job.summary
    (command,) = job.commands
    assert command.startswith("::notice file=requirements.txt,")
    assert "3 xfailed" in job.logs["Run the probes"] and "bringing up nodes" in job.logs["Run the probes"]  # xdist says the latter


def test_the_day_after_it_is_red(affected: Environment, gate: Gate, tmp_path: Path) -> None:
    repository = sample(tmp_path / "repository")
    over = date.today() - timedelta(days=1)
    accept(repository, over)
    job = gate(affected, repository, baseline="truestep-baseline.json")
    assert job.code == 1 and job.outputs["outcome"] == "findings", job.log[-3000:]
    assert f"was accepted until {over}" in job.summary
    lines = (repository / "truestep-baseline.json").read_text(encoding="utf-8").splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if "W1-K3" in text)
    assert any(c.startswith(f"::error file=truestep-baseline.json,line={line},title={BUG}%3A over its date::") for c in job.commands), job.commands
    assert "BASELINE: " in job.logs["Run the probes"]


def only_report(environment: Environment, repository: Path, gate: Gate, code: str, **inputs: str) -> composite.Job:
    """The action on results that are there, as if pytest had answered ``code`` now."""
    return gate(environment, repository, {"Run the probes": {"code": code}}, **inputs)


def test_the_policy_decides_and_nothing_hides_what_pytest_said(
    affected: Environment, red: tuple[Path, composite.Job], green: tuple[Path, composite.Job], gate: Gate
) -> None:
    here, matrix = red[0], "truestep-results/matrix.json"
    before = {"fixed": str(green[0] / matrix), "same": str(here / matrix)}
    for inputs, code, outcome, level in (
        ({"fail_on": "findings"}, 1, "findings", "error"),
        ({"fail_on": "never"}, 0, "clean", "warning"),
        ({"fail_on": "new", "against": before["same"]}, 0, "clean", "warning"),
        ({"fail_on": "new", "against": before["fixed"]}, 1, "findings", "error"),
    ):
        job = only_report(affected, here, gate, "1", **inputs)
        assert (job.code, job.outputs["outcome"], job.outputs["findings"]) == (code, outcome, "1"), (inputs, job.log[-2000:])
        assert [command.split()[0] for command in job.commands] == [f"::{level}"], inputs
    for said in ("1", "2", "3"):  # a verdict that cannot be trusted, interrupted, an error of pytest's own: all cells that were judged are right
        job = only_report(affected, green[0], gate, said)
        assert (job.code, job.outputs["outcome"]) == (2, "unusable"), job.log[-2000:]
        assert f"pytest answered {said}" in job.summary


def test_a_bump_is_judged_by_what_it_changes(affected: Environment, red: tuple[Path, composite.Job], green: tuple[Path, composite.Job], tmp_path: Path) -> None:
    old, new = (str(one[0] / "truestep-results" / "matrix.json") for one in (red, green))
    shell = pages.shell(tmp_path, PATH=affected.variables["PATH"])
    up, down = shell(f"truestep compare '{old}' '{new}'"), shell(f"truestep compare '{new}' '{old}'")
    assert (up.returncode, down.returncode) == (0, 1), up.stdout + down.stdout
    assert "0 new, 3 fixed" in up.stdout and "3 new, 0 fixed" in down.stdout


def test_without_any_framework_it_is_not_green(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    active = {"PATH": os.pathsep.join([str(tmp_path / "venv" / "bin"), os.environ["PATH"]]), "PYTHONPATH": ""}
    inputs = {**asked(), "requirements": "", "torch": "", "truestep": str(wheel)}
    job = composite.run(ACTION, sample(tmp_path / "repository"), tmp_path / "temp", inputs, active)
    if job.codes["Install"] and any(text in job.log for text in UNREACHABLE):
        pytest.skip("pytest cannot be installed here: no package index")
    assert (job.codes["Install"], job.codes["Report"], job.codes["Pass or fail"]) == (0, 0, 2), job.log[-3000:]
    assert job.outputs == {"outcome": "unusable", "findings": "", "report": ""}
    assert "nothing was judged" in job.summary and "Send the findings to code scanning" not in job.used
    assert any(c.startswith("::error title=truestep::nothing was judged") for c in job.commands)


def test_the_plain_shell_recipe(affected: Environment, tmp_path: Path) -> None:
    repository = sample(tmp_path / "repository")
    accept(repository, date.today())  # the last day is a day on which it holds
    done = subprocess.run(["./check.sh"], cwd=repository, env={**os.environ, **affected.variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "3 xfailed" in done.stdout
    assert {"report.html", "junit.xml"} <= {path.name for path in (repository / "truestep-results").iterdir()}
