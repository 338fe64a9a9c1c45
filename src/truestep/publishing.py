"""The command ``truestep publish``: results as the pages of ``reports/published``. Exit code 0, or 2 for what cannot be published."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLEAN, UNUSABLE = 0, 2


def add(commands: Any) -> None:
    """Add the command to the parser of ``truestep``."""
    text = "results as a page that GitHub renders, with its picture, HTML and JSON; the same results give the same bytes"
    publish = commands.add_parser("publish", help=text, description=text)
    publish.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results files, folders of them, or matrices (*.json)")
    publish.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="MATRIX.md, matrix.svg, matrix.html and matrix.json are written there")
    publish.add_argument("--title", help="of the page")
    publish.set_defaults(act=_publish)


def _publish(options: argparse.Namespace) -> int:
    from truestep.outputs import write
    from truestep.reports import grid, publish
    from truestep.reports.results import ResultsError, files, read

    try:
        results = read(options.results)
        made = publish.files(results, options.title or publish.TITLE, hosts(files(options.results)))
    except ResultsError as error:
        print(f"truestep: {error}", file=sys.stderr)
        return UNUSABLE
    for text in results.problems:
        print(f"truestep: {text}", file=sys.stderr)
    for name, text in made.items():
        write(options.output / name, text)
    shown = grid.folded(results)
    many, verdicts = len(shown.environments), sum(1 for _ in shown)
    told = f"{many} environment{'s' * (many != 1)}, {verdicts:,} verdict{'s' * (verdicts != 1)}"
    print(f"{options.output}: {told} as {', '.join(made)}")
    return CLEAN


def hosts(paths: Iterable[Path]) -> set[str]:
    """The machines that the runs in these files name; a file says so to tell whether a run is still at work, the pages do not."""
    found = set()
    for path in paths:
        if path.suffix == ".json":
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"host"' not in line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a torn line is told by ``read``
            if isinstance(record, dict) and record.get("record") == "run":
                found.add(str(record.get("host", "")))
    return found
