"""A composite GitHub action, run by hand: its ``run:`` steps in a shell as a runner would, its ``uses:`` steps only written down.

Of the expressions what action.yml needs: inputs, outputs of steps, ``==``, ``!=``, ``&&``, ``||``, texts in quotes and ``!cancelled()``; anything
else is refused. Metadata syntax: GitHub's documentation, "Metadata syntax for GitHub Actions"; expressions: "Evaluate expressions in workflows".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what a runner starts for ``shell: bash``


@dataclass
class Job:
    """What a run left: exit codes and logs of the steps that ran, in order; what was handed to other actions; the summary."""

    codes: dict[str, int] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    used: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    steps: dict[str, dict[str, str]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    @property
    def code(self) -> int:
        """Of the first step that failed; 0 where none did."""
        return next((code for code in self.codes.values() if code), 0)

    @property
    def log(self) -> str:
        return "".join(f"##[{name}] {self.codes[name]}\n{text}" for name, text in self.logs.items())

    @property
    def commands(self) -> list[str]:
        """The workflow commands that the runner would obey."""
        found, stopped = [], ""
        for line in self.log.splitlines():
            if stopped:
                stopped = "" if line == f"::{stopped}::" else stopped
            elif line.startswith("::stop-commands::"):
                stopped = line.removeprefix("::stop-commands::")
            elif line.lstrip().startswith("::"):
                found.append(line.lstrip())
        return found


def load(path: Path) -> dict[str, Any]:
    """All scalars as texts: YAML 1.1's ``on`` is no key here."""
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    return data


def run(
    action: Path, workspace: Path, temp: Path, inputs: Mapping[str, str], environment: Mapping[str, str], given: Mapping[str, Mapping[str, str]] | None = None
) -> Job:
    """Run its steps in ``workspace``.

    given : outputs of steps, by name, that are not run (an installation that was made before); raises ValueError for an input that there is not
    """
    data = load(action)
    if unknown := set(inputs) - set(data["inputs"]):
        raise ValueError(f"no input {sorted(unknown)[0]!r}")
    context: dict[str, Any] = {
        "inputs": {name: inputs.get(name, one.get("default", "")) for name, one in data["inputs"].items()},
        "github": {"action_path": str(action.parent)},
        "runner": {"os": "Linux", "arch": "X64"},
        "steps": {},
    }
    job = Job(steps=context["steps"])
    temp.mkdir(parents=True, exist_ok=True)
    files = {name: temp / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
    for step in data["runs"]["steps"]:
        name = step["name"]
        if given is not None and name in given:
            context["steps"][step.get("id", name)] = {"outputs": dict(given[name])}
            continue
        condition = step.get("if", "${{ success() }}").strip()
        if job.code and "cancelled()" not in condition:
            continue
        if "if" in step and not evaluate(condition.removeprefix("${{").removesuffix("}}"), context):
            continue
        if "uses" in step:
            job.used[name] = (step["uses"], {key: fill(text, context) for key, text in step.get("with", {}).items()})
            continue
        assert step["shell"] == "bash", f"{name}: a composite action must say in which shell"
        for file in files.values():
            file.write_text("")
        script = temp / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        env = {
            **os.environ, **environment, "RUNNER_TEMP": str(temp), "GITHUB_WORKSPACE": str(workspace),
            **{key: str(file) for key, file in files.items()}, **{key: fill(text, context) for key, text in step.get("env", {}).items()},
        }  # fmt: skip
        done = subprocess.run([*BASH, str(script)], cwd=workspace, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=400, check=False)  # fmt: skip
        job.codes[name], job.logs[name] = done.returncode, done.stdout
        context["steps"][step.get("id", name)] = {"outputs": _outputs(files["GITHUB_OUTPUT"].read_text(encoding="utf-8"))}
        job.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        assert not files["GITHUB_ENV"].read_text(), f"{name} changes the environment of the job that uses it"
    job.outputs = {name: fill(one["value"], context) for name, one in data["outputs"].items()}
    return job


def _outputs(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in text.splitlines()]
    assert all(equals and re.fullmatch(r"[\w-]+", name) for name, equals, _ in pairs), f"not NAME=VALUE: {text!r}"
    return {name: value for name, _, value in pairs}


def fill(text: str, context: Mapping[str, Any]) -> str:
    """A text with its expressions replaced."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluate(found[1], context)), text)


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """Of one expression; ``&&`` and ``||`` answer with an operand, as in JavaScript."""
    expression = expression.strip()
    for operator in ("||", "&&"):
        left, found, right = expression.partition(operator)
        if found:
            first = evaluate(left, context)
            return first if bool(first) == (operator == "||") else evaluate(right, context)
    if compared := re.fullmatch(r"(.+?)\s*(==|!=)\s*(.+)", expression):
        same = str(evaluate(compared[1], context)).lower() == str(evaluate(compared[3], context)).lower()
        return same == (compared[2] == "==")
    if expression == "!cancelled()":
        return True
    if text := re.fullmatch(r"'([^']*)'", expression):
        return text[1]
    if not re.fullmatch(r"(inputs|steps|github|runner)(\.[\w-]+)+", expression):
        raise ValueError(f"not an expression that this reads: {expression!r}")
    value: Any = context
    for part in expression.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value
