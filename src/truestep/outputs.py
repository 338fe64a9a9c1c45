"""The commands that make something of results files: report, merge, compare, baseline. Exit codes as everywhere: 0 clean, 1 findings, 2 unusable."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truestep.reports.results import Results

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2
#: what ``--all DIR`` writes there
NAMES = {
    "html": "report.html", "json": "matrix.json", "junit": "junit.xml", "sarif": "truestep.sarif", "markdown": "summary.md", "badge": "badge.svg",
    "endpoint": "badge.json",
}  # fmt: skip


def add(commands: Any) -> None:
    """Add these commands to the parser of ``truestep``."""
    report = _command(commands, "report", _report, "results as a table, and as HTML, JSON, JUnit, SARIF, Markdown or a badge; fails by policy")
    _results(report)
    for name, text in (
        ("html", "one self-contained page"),
        ("json", "the matrix as one document; report and compare read it back"),
        ("junit", "JUnit XML: a suite for each environment"),
        ("sarif", "SARIF 2.1.0, located where the versions are pinned"),
        ("markdown", "a job summary; appended where FILE is $GITHUB_STEP_SUMMARY"),
        ("badge", "an SVG, or endpoint data for shields.io where FILE ends in .json"),
    ):
        report.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    report.add_argument("--annotations", type=Path, metavar="FILE", help="workflow commands of GitHub Actions: ::error file=...,line=...:: for each finding")
    report.add_argument("--all", type=Path, metavar="DIR", help=f"all of them in one folder: {', '.join(NAMES.values())}")
    report.add_argument("--baseline", type=Path, metavar="FILE", help="findings that are accepted (truestep baseline)")
    report.add_argument("--against", type=Path, nargs="+", metavar="OLD", help="results of an earlier run: what is new, fixed, unchanged")
    report.add_argument("--pin", type=Path, nargs="+", action="extend", metavar="FILE",
                        help="files that pin versions, for SARIF (default: those of the current folder)")  # fmt: skip
    report.add_argument("--fail-on", choices=("findings", "new", "never"), default="findings",
                        help="what makes the exit code 1 (default findings); what was not judged is 2 whatever is chosen")  # fmt: skip
    report.add_argument("--title", default="truestep", metavar="TEXT", help="what it is called (default truestep)")
    merge = _command(commands, "merge", _merge, "several results files and folders as one, every run once")
    _results(merge)
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.jsonl", help="where to; must be among RESULTS if it is there already")
    compare = _command(commands, "compare", _compare, "two runs: new, fixed and unchanged findings; exit code 1 when one is new")
    compare.add_argument("old", type=Path, metavar="OLD", help="results of the earlier run: a file, a folder or a matrix (*.json)")
    compare.add_argument("new", type=Path, metavar="NEW", help="results of the later run")
    compare.add_argument("--markdown", type=Path, metavar="FILE", help="write it as a page")
    compare.add_argument("--json", type=Path, metavar="FILE", help="write it as data (docs/schema.md)")
    base = _command(commands, "baseline", _baseline, "accept the findings of these results, for a reason and until a day")
    _results(base)
    base.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the baseline file to write")
    base.add_argument("--reason", default="", metavar="TEXT", help="why they are accepted")
    base.add_argument("--expires", metavar="YYYY-MM-DD", help="the last day on which they are")
    base.add_argument("--update", action="store_true", help="keep reasons and dates of what is in FILE and still there; drop what is right by now")


def _command(commands: Any, name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(act=lambda options: _usable(act, options))
    return sub


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results files, folders of them, or matrices (*.json)")


def _usable(act: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    from truestep.reports.baseline import BaselineError
    from truestep.reports.results import ResultsError

    try:
        return act(options)
    except (ResultsError, BaselineError) as error:
        print(f"truestep: {error}", file=sys.stderr)
        return UNUSABLE


def _read(paths: Sequence[Path]) -> Results:
    """All of it; a line that could not be read is told."""
    from truestep.reports.results import read

    results = read(paths)
    for text in results.problems:
        print(f"truestep: {text}", file=sys.stderr)
    return results


def _say(line: str) -> None:
    """Print what others wrote: no control character reaches the terminal, and none that it cannot show stops the report."""
    plain = "".join(c if c.isprintable() else "\ufffd" for c in line)
    encoding = sys.stdout.encoding or "utf-8"
    print(plain.encode(encoding, "replace").decode(encoding))


def write(path: Path, text: str) -> None:
    """Whole or not at all: a full disk leaves what was there. Raises OSError."""
    data = text.encode("utf-8", "replace")  # half of a surrogate pair is no character
    device = path.exists() and not path.is_file()  # /dev/stdout
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path if device else spare).write_bytes(data)
        if not device:
            os.replace(spare, path)
    except OSError as error:
        if not device:
            with suppress(OSError):
                spare.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def _report(options: argparse.Namespace) -> int:
    from truestep.reports import baseline, overview
    from truestep.reports.compare_runs import compare
    from truestep.reports.findings import counts, judged
    from truestep.reports.gate import decide
    from truestep.reports.results import ResultsError

    if options.fail_on == "new" and options.against is None:
        raise ResultsError("--fail-on new needs the results of an earlier run: --against OLD")
    accepted = baseline.load(options.baseline) if options.baseline is not None else None
    results = _read(options.results)
    answered = judged(counts(row for _, row in results)) > 0
    comparison = compare(_read(options.against), results) if options.against is not None and answered else None
    outcome = decide(results, date.today(), baseline=accepted, comparison=comparison, fail_on=options.fail_on)
    for line in overview.overview(results, outcome, comparison):
        _say(line)
    for path, make in _wanted(options, results, outcome, comparison):
        text = make()
        if path == Path(os.environ.get("GITHUB_STEP_SUMMARY") or os.devnull):
            with open(path, "a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        else:
            write(path, text)
    return outcome.code


def _wanted(options: argparse.Namespace, results: Results, outcome: Any, comparison: Any) -> list[tuple[Path, Callable[[], str]]]:
    """(file, what makes its text) of everything that was asked for."""
    from truestep.reports import annotations, badge, junit, pack, sarif, summary

    def html() -> str:
        from truestep.reports.html import render

        return render(pack.pack(results, options.title))

    @cache
    def located() -> dict[str, Any]:
        from truestep.reports import locate

        pinned = options.pin or locate.files(Path.cwd())
        if not pinned:
            print("truestep: no file here pins a version; SARIF names the results instead (--pin FILE)", file=sys.stderr)
        return sarif.document(results, outcome, pinned, _repository())

    def annotated() -> str:
        new = comparison.new if comparison is not None and options.fail_on == "new" else None
        some = annotations.annotate(located(), outcome, new=new, baseline=options.baseline, root=_repository())
        return annotations.render(some)

    makers: Mapping[str, Callable[[], str]] = {
        "json": lambda: json.dumps(pack.pack(results, options.title), separators=(",", ":"), allow_nan=False) + "\n",
        "junit": lambda: junit.render(results, outcome, options.title),
        "sarif": lambda: sarif.render(located()),
        "markdown": lambda: summary.render(results, outcome, comparison, options.title),
        "badge": lambda: badge.svg(badge.badge(results, outcome)),
        "endpoint": lambda: badge.endpoint(badge.badge(results, outcome)),
        "html": html,
        "annotations": annotated,
    }
    wanted = []
    for name, make in makers.items():
        path = getattr(options, name, None)
        if path is not None:
            wanted.append((path, makers["endpoint"] if name == "badge" and path.suffix == ".json" else make))
        if options.all is not None and name in NAMES:
            wanted.append((options.all / NAMES[name], make))
    return wanted


def write_all(results: Results, folder: Path, accepted: Any = None) -> None:
    """What ``truestep report --all FOLDER`` writes; accepted: a ``baseline.Baseline``. Raises OSError."""
    from truestep.reports.gate import decide

    outcome = decide(results, date.today(), baseline=accepted)
    for path, make in _wanted(argparse.Namespace(all=folder, title="truestep", pin=None), results, outcome, None):
        write(path, make())


def _repository() -> Path:
    """The folder that URIs are relative to: the repository that the command is run in, else the current folder."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def _merge(options: argparse.Namespace) -> int:
    from truestep.reports.merge import merge
    from truestep.reports.results import ResultsError, files

    if options.output.exists() and options.output.resolve() not in [path.resolve() for path in files(options.results)]:
        raise ResultsError(f"{options.output} is there already; name it among RESULTS to add to it, or remove it")
    lines, problems = merge(options.results)
    for text in problems:
        print(f"truestep: {text}", file=sys.stderr)
    write(options.output, "".join(f"{line}\n" for line in lines))
    results = _read([options.output])
    runs = sum(len(one.runs) for one in results.environments)
    print(f"{options.output}: {len(results.environments)} environments, {runs} runs, {sum(1 for _ in results)} cells")
    return CLEAN


def _compare(options: argparse.Namespace) -> int:
    from truestep.reports import compare_runs
    from truestep.reports.summary import against

    comparison = compare_runs.compare(_read([options.old]), _read([options.new]))
    for line in compare_runs.lines(comparison):
        _say(line)
    if options.markdown is not None:
        write(options.markdown, "\n".join(against(comparison)) + "\n")
    if options.json is not None:
        write(options.json, json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n")
    return FINDINGS if comparison.of(compare_runs.NEW) else CLEAN


def _baseline(options: argparse.Namespace) -> int:
    from truestep.reports import baseline
    from truestep.reports.findings import counts, judged

    before = None
    if options.output.exists():
        if not options.update:
            raise baseline.BaselineError(f"{options.output} is there already; --update keeps its reasons and dates, or remove it")
        before = baseline.load(options.output)
    expires = baseline.day(options.expires, "--expires") if options.expires is not None else None
    if expires is not None and expires < date.today():
        raise baseline.BaselineError(f"--expires {expires} is over already; name a day to come")
    rows = [row for _, row in _read(options.results)]
    if not judged(counts(rows)):
        raise baseline.BaselineError("nothing was judged in these results; there is nothing to accept")
    made = baseline.accept(rows, options.reason, expires, before)
    write(options.output, made.to_json())
    told = counts(rows)
    print(f"{options.output}: {sum(len(e.cells) for e in made.entries)} cells of {len({e.bug for e in made.entries})} bugs accepted")
    if failed := told["error"] + told["timeout"]:
        print(f"truestep: {failed} of them are errors and timeouts: nothing is known of these cells", file=sys.stderr)
    if over := made.expired(date.today()):
        print(f"truestep: {len(over)} entries are over their date and still there: cure them, or edit their dates", file=sys.stderr)
    return CLEAN
