"""The documentation, executed: the files and commands that a page shows are those that the tests write and run.

A block ``python title="path"`` (or toml) is a file, ``diff title="path"`` a change of one, ``console`` a session: lines that begin
with ``$ `` are commands for a shell, what follows is what they must print, line by line in this order. There ``...`` stands for
anything, and a number like 1.3e-07 (rounding) for any such number; a line that is only ``...`` for any lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S)
TITLE = re.compile(r'(?P<kind>\w+) title="(?P<path>[^"]+)"')
TINY = re.compile(r"\d(?:\.\d+)?e-\d\d")


@dataclass(frozen=True)
class Ran:
    """A command of a page, what the page says it prints, what it printed (stderr too), and its exit code."""

    line: str
    expected: tuple[str, ...]
    printed: str
    code: int

    @property
    def missing(self) -> str:
        """ "" where everything that the page shows was printed, in this order; else the first line that was not."""
        lines = iter(self.printed.splitlines())
        for wanted in self.expected:
            if wanted.strip() != "..." and not any(_pattern(wanted).fullmatch(line.rstrip()) for line in lines):
                return wanted
        return ""


Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(info string, body) of every fenced block."""
    return [(found["info"].strip(), found["body"]) for found in FENCE.finditer(text)]


def sessions(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """(command, what it is said to print) of all console blocks."""
    found: list[tuple[str, list[str]]] = []
    for info, body in blocks(text):
        for line in body.splitlines() if info == "console" else ():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                found[-1][1].append(line)
    return [(line, tuple(output)) for line, output in found]


def play(text: str, folder: Path, shell: Shell, but: frozenset[str] = frozenset()) -> list[Ran]:
    """Do what the page says, from top to bottom, in ``folder``: write its files, change them, run its commands (but some)."""
    ran = []
    for info, body in blocks(text):
        titled = TITLE.fullmatch(info)
        if titled and titled["kind"] == "diff":
            _change(folder / titled["path"], body)
        elif titled:
            path = folder / titled["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
        for line, expected in sessions(f"```{info}\n{body}```\n"):
            if line not in but:
                done = shell(line)
                ran.append(Ran(line, expected, done.stdout, done.returncode))
    return ran


def _change(path: Path, diff: str) -> None:
    """Exchange each run of lines that are taken away for the lines that follow it; it must be there exactly once."""
    source = path.read_text(encoding="utf-8")
    for hunk in re.finditer(r"(?P<old>(?:^-.*\n)+)(?P<new>(?:^\+.*\n)+)", diff, re.M):
        old, new = (re.sub(r"^.", "", hunk[name], flags=re.M) for name in ("old", "new"))
        assert source.count(old) == 1, f"{path.name} does not have once: {old!r}"
        source = source.replace(old, new)
    path.write_text(source, encoding="utf-8")


def shell(cwd: Path, **environment: str) -> Shell:
    """A shell in that folder, with this interpreter's environment active; stderr goes into stdout."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "COLUMNS": "100", **environment}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300, check=False)  # fmt: skip

    return run


def environment(folder: Path) -> dict[str, str]:
    """A virtual environment in ``folder`` that sees everything of this one, so that a page may install into it (and nothing else).

    Returns the variables that activate it; pip installs from where it stands, without a network.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    binaries = folder / "bin"
    (site,) = folder.glob("lib/python*/site-packages")
    seen = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    (site / "outer.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in seen))
    for name, module in (("pip", "pip"), ("pytest", "pytest"), ("truestep", "truestep.cli")):
        (binaries / name).write_text(f'#!/bin/sh\nexec "{binaries}/python" -m {module} "$@"\n')
        (binaries / name).chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # how pip spells "yes, none": its environment variables negate the option
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
    }


def _pattern(line: str) -> re.Pattern[str]:
    parts = re.split(r"(\.\.\.|" + TINY.pattern + ")", line.rstrip())
    return re.compile("".join(".*" if p == "..." else TINY.pattern if TINY.fullmatch(p) else re.escape(p) for p in parts))
