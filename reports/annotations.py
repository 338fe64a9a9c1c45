"""Findings as workflow commands of GitHub Actions: each is shown at the line that pins the version, in the changes of a pull request too.

Commands: GitHub's documentation, "Workflow commands for GitHub Actions"; their escapes and how many are shown: actions/toolkit,
packages/core/src/command.ts and docs/problem-matchers.md. Made from the SARIF log, so that both name the same places and say the same words.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from truestep.reports.baseline import Entry, Expired
from truestep.reports.gate import CLEAN, FINDINGS, Outcome

LEVELS = ("error", "warning", "notice")
MOST = 10  # of each level are shown of one step


@dataclass(frozen=True)
class Annotation:
    """level: one of ``LEVELS``; file: relative to the repository, "" for none; line: from 1."""

    level: str
    title: str
    message: str
    file: str = ""
    line: int = 1

    def __str__(self) -> str:
        """One line, whatever the texts hold: ``::error file=requirements.txt,line=3,title=deepspeed-7967::what was done``."""
        place = {"file": self.file, "line": str(self.line)} if self.file else {}
        properties = ",".join(f"{name}={_property(text)}" for name, text in {**place, "title": self.title}.items())
        return f"::{self.level} {properties}::{_data(self.message)}"


def annotate(
    log: Mapping[str, Any], outcome: Outcome, *, new: Container[tuple[str, str]] | None = None, baseline: Path | None = None, root: Path | None = None
) -> list[Annotation]:
    """Errors first, then what does not fail the run, then what is accepted or by design.

    log      : ``sarif.document`` of the same results and outcome
    new      : (environment, cell) of the findings that fail; None: all that are not accepted do
    baseline : the file of accepted findings: an entry that has to go is shown in it; root: of the repository
    """
    some = [*_entries(outcome, baseline, root), *_findings(log, outcome, new)]
    if outcome.code not in (CLEAN, FINDINGS):
        some += [Annotation("error", "truestep could not judge", reason) for reason in outcome.reasons]
    return sorted(some, key=lambda one: LEVELS.index(one.level))


def render(some: list[Annotation]) -> str:
    """One command a line; of each level as many as are shown, the last of them says how many more there are."""
    lines: list[str] = []
    for level in LEVELS:
        these = [one for one in some if one.level == level]
        if len(these) > MOST:
            rest = len(these) - MOST + 1
            these = [*these[: MOST - 1], Annotation(level, "truestep", f"and {rest} more; all are in the job summary and in the report")]
        lines += map(str, these)
    return "".join(f"{line}\n" for line in lines)


def _findings(log: Mapping[str, Any], outcome: Outcome, new: Container[tuple[str, str]] | None) -> Iterator[Annotation]:
    for run in log["runs"]:
        for result in run["results"]:
            level = "notice" if result.get("suppressions") or result["level"] == "note" else "error"  # a worker that failed fails the run as well
            if level == "error" and (outcome.code == CLEAN or (new is not None and not _any(result["properties"], new))):
                level = "warning"  # the policy lets it pass
            place = result["locations"][0]["physicalLocation"]
            address = place["artifactLocation"]
            file = unquote(address["uri"]) if "uriBaseId" in address else ""
            yield Annotation(level, str(result["ruleId"]), str(result["message"]["text"]), file, int(place["region"]["startLine"]))


def _any(properties: Mapping[str, Any], new: Container[tuple[str, str]]) -> bool:
    """Whether one of its cells is new; of very many not all are named."""
    return properties["cells"] > len(properties["ids"]) or any((properties["environment"], cell) in new for cell in properties["ids"])


def _entries(outcome: Outcome, baseline: Path | None, root: Path | None) -> Iterator[Annotation]:
    level = "error" if outcome.code != CLEAN else "warning"
    for entry in outcome.expired:
        yield Annotation(level, f"{entry.bug}: over its date", str(Expired(entry)), *_in(baseline, entry, root))
    for entry in outcome.stale:
        words = f"accepted, but right by now; remove it from the baseline: {', '.join(entry.cells)}"
        yield Annotation(level, f"{entry.bug}: right by now", words, *_in(baseline, entry, root))


def _in(baseline: Path | None, entry: Entry, root: Path | None) -> tuple[str, int]:
    """The file and the first line that names a cell of this entry."""
    if baseline is None or root is None or not baseline.resolve().is_relative_to(root.resolve()):
        return "", 1
    lines = baseline.read_text(encoding="utf-8").splitlines()
    line = next((n for n, text in enumerate(lines, start=1) if f'"{entry.cells[0]}"' in text), 1)
    return baseline.resolve().relative_to(root.resolve()).as_posix(), line


def _data(text: str) -> str:
    plain = "".join(c if c.isprintable() or c in "\r\n" else "�" for c in text)
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
