"""The ``truestep`` command. Exit codes: 0 clean, 1 findings, 2 unusable input."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truestep import __version__, outputs, publishing
from truestep.fixtures.cell import Cell, CellError, parse

if TYPE_CHECKING:
    from truestep.patches.lifecycle import PatchStatus
    from truestep.suite import Suite

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2
EPILOG = """a cell is one or a few optimizer steps of one framework under one configuration; its id says all of it:
  truestep run torch-mlp-W2-K4-parallel:ddp          an MLP under DDP: two ranks, four micro-batches to a step
  pytest --pyargs truestep.probes --list-cells -q    the cells of the suite, which pytest runs

exit codes: 0 clean, 1 findings, 2 unusable input; exec: the command's own"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except CellError as error:
        print(f"truestep: {error}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:  # whoever reads has seen enough: | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at its end
        return UNUSABLE
    except OSError as error:
        print(f"truestep: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("truestep: interrupted; results so far are kept", file=sys.stderr)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="truestep",
        description="Does the framework take the optimizer step that you think it takes?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"truestep {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(act=act)
        return sub

    run = command("run", _run, "take the step of these cells and judge it")
    run.add_argument("cells", nargs="+", metavar="ID|FILE", help="a cell's id, or a JSON file (*.json) of one cell or a list of them")
    sweep = command("sweep", _sweep, "judge random cells over all knobs; the same ones for the same seed")
    sweep.add_argument("-n", "--count", type=_positive, default=200, metavar="N", help="how many (default 200)")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="which ones (default 0)")
    sweep.add_argument("--framework", default="deepspeed", metavar="NAME", help="of which framework (default deepspeed)")
    sweep.add_argument("--confirm", action="store_true", help="run the standalone script of every finding as well")
    hunting = command("hunt", _hunt, "draw cells until one is wrong and not known, and shrink it to the smallest that still is")
    hunting.add_argument("fixed", nargs="*", metavar="KNOB=VALUE", help="pin knobs or axes: stage=2 world_size=1 model=mlp")
    hunting.add_argument("-n", "--count", type=_positive, default=300, metavar="N", help="draw at most so many (default 300)")
    hunting.add_argument("--seed", type=int, metavar="N", help="draw the same cells again; without it failing ones are replayed first")
    hunting.add_argument("--framework", default="deepspeed", metavar="NAME", help="of which framework (default deepspeed)")
    hunting.add_argument("--known", action="store_true", help="stop at a cell that a known bug explains, too")
    hunting.add_argument("--patch", action="store_true", help="apply truestep's patches first")
    hunting.add_argument("--database", type=Path, metavar="DIR", default=Path(".hypothesis") / "truestep",
                         help="failing cells are kept and replayed here (default .hypothesis/truestep)")  # fmt: skip
    for sub in (run, sweep):
        sub.add_argument("--patch", action="store_true", help="apply truestep's patches first")
        sub.add_argument("--only-patch", action="append", default=[], metavar="ID", help="apply only this patch (repeatable)")
        sub.add_argument("--results", type=Path, metavar="FILE", help="append every verdict to FILE as a JSON line")
        sub.add_argument("--resume", action="store_true", help="go on where the last run of that FILE stopped, if nothing has changed since")
        sub.add_argument("--json", action="store_true", help="print verdicts as JSON lines instead of text")
    run.add_argument("--weights", action="store_true", help="show the effective weights of cells that are right, too")
    repro = command("repro", _repro, "write a standalone script for a cell: the framework and torch, no truestep")
    repro.add_argument("cell", metavar="ID|FILE", help="a cell's id, or a JSON file of one cell")
    repro.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there (default: standard output)")
    self_test = command(
        "selftest", _selftest, "how often truestep is right: seeded and random faults, clean cells, repeatability"
    )
    self_test.add_argument(
        "--framework", action="append", metavar="NAME", help="only this one (repeatable; default: torch and every framework that is installed)"
    )
    self_test.add_argument(
        "--clean", type=int, default=300, metavar="N", help="random clean cells of each framework (default 300)"
    )
    self_test.add_argument("--random", type=int, default=180, metavar="N", help="random faults (default 180)")
    self_test.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn at random (default 0)")
    self_test.add_argument("--fault", default="", metavar="TEXT", help="only the seeded faults whose name holds TEXT")
    self_test.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the scores to FILE (Markdown) as well")
    command("patches", _patches, "which patches there are, and what each would do with the installed versions")
    paged = command("table", _table, "results files as a page (Markdown): what is right, wrong and by design, every row with its command")
    paged.add_argument("results", nargs="+", type=Path, metavar="FILE", help="results files or folders of them")
    advisory = command("advisories", _advisories, "the known bugs as data")
    advisory.add_argument("--osv", action="store_true", help="in the OSV schema, one JSON object per line")
    wrap = command("exec", _exec, "run a command with the patches applied in it and in its children")
    wrap.usage = "truestep exec [-h] -- COMMAND ..."
    wrap.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="for example: -- torchrun train.py")
    outputs.add(commands)
    publishing.add(commands)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def read_cells(arguments: Sequence[str]) -> list[Cell]:
    """Ids, or files of cells; raises CellError with one line on the first that is neither."""
    cells: list[Cell] = []
    for argument in arguments:
        if not argument.endswith(".json"):
            cells.append(parse(argument))
            continue
        try:
            data = json.loads(Path(argument).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CellError(f"cannot read {argument}: {error}; expected a JSON cell or a list of them") from None
        cells += [Cell.from_json(item) for item in (data if isinstance(data, list) else [data])]
    return cells


def _run(options: argparse.Namespace) -> int:
    return _judge(read_cells(options.cells), "Is this the step that the whole batch makes?", options)


def _sweep(options: argparse.Namespace) -> int:
    from truestep.probes.pairs import random_cells

    cells = random_cells(options.framework, options.count, options.seed)
    return _judge(cells, "Whatever combination of settings, the step must be the one of the whole batch.", options)


def _chosen_patches(options: argparse.Namespace) -> bool | tuple[str, ...]:
    """All patches, those that were named, or none; raises CellError for a name that there is not."""
    from truestep.patches.catalogue import patches

    known = [one.id for one in patches()]
    for name in options.only_patch:
        if name not in known:
            raise CellError(f"no patch {name!r}; truestep patches lists them")
    return tuple(options.only_patch) or bool(options.patch)


def _judge(cells: list[Cell], question: str, options: argparse.Namespace) -> int:
    from truestep.journal import Journal, Progress
    from truestep.suite import Suite

    chosen = _chosen_patches(options)
    journal = Journal(options.results, {"patch": chosen, "setup": []}, resume=options.resume) if options.results is not None else None
    progress = Progress(journal.name if journal else "", len(cells), lambda line: print(line, file=sys.stderr, flush=True))
    suite = Suite(
        patch=chosen, journal=journal, progress=progress, detail=len(cells) <= 20, weigh=getattr(options, "weights", False)
    )
    rows: list[dict[str, Any]] = []
    unwritten = ""
    try:
        if journal is not None:
            journal.begin(len(cells))
            if journal.said:
                print(f"truestep: {journal.said}", file=sys.stderr)
        code = _answer(suite, cells, question, options, rows)
    finally:
        suite.close()
        if journal is not None and (unwritten := journal.end(len(rows) == len(cells))):
            print(f"truestep: {unwritten}", file=sys.stderr)
    return UNUSABLE if unwritten else code


def _answer(suite: Suite, cells: list[Cell], question: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    from truestep.reports import terminal

    suite.told = {cell.id: {"family": "run", "question": question} for cell in cells}
    suite.submit(cells)
    for cell in cells:
        verdict = suite.verdict(cell)
        rows.append({"family": "run", "question": question, **verdict.to_json()})
        if options.json:
            print(json.dumps(rows[-1]), flush=True)
        elif len(cells) <= 20 and verdict.verdict not in ("wrong", "by-design", "error", "timeout"):
            print("\n".join(terminal.brief(verdict)), flush=True)
    if not options.json:
        print("\n".join(terminal.summary(rows, {}, 0, patched=bool(suite.patch))))
    red = [r for r in rows if r["verdict"] in ("wrong", "error", "timeout")]
    if getattr(options, "confirm", False):
        _confirm_by_script(red)
    if not red and not any(r["verdict"] in ("pass", "by-design") for r in rows):
        print("truestep: nothing was judged; the reasons are above", file=sys.stderr)
        return UNUSABLE
    return FINDINGS if red or suite.leaks else CLEAN


def _hunt(options: argparse.Namespace) -> int:
    from truestep.reports import terminal
    from truestep.reports.hunt import hunt
    from truestep.suite import Suite

    fixed = _fixed(options.framework, options.fixed)
    quick = Suite(patch=options.patch, confirm=False)
    sure = Suite(patch=options.patch, detail=True)
    try:
        found = hunt(
            options.framework, quick.verdict, examples=options.count, seed=options.seed, database=options.database,
            known=options.known, fixed=fixed,
        )  # fmt: skip
        counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(found.counts.items()))
        print(f"{found.tried} cells tried: {counts}")
        if found.smallest is None:
            return CLEAN
        verdict = sure.verdict(Cell.from_json(found.smallest.cell))
        print(f"shrunk from {found.first}\nto {verdict.id}, the smallest that still fails\n")
        print(
            "\n".join(
                terminal.finding("Whatever combination of settings, the step must be the one of the whole batch.", verdict)
            )
        )
        return FINDINGS
    finally:
        quick.close()
        sure.close()


def _fixed(framework: str, pairs: Sequence[str]) -> dict[str, Any]:
    """``stage=2 world_size=1 windows=2,2`` as keyword arguments of a cell; raises CellError on anything else."""
    fixed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CellError(f"{pair!r} is not KNOB=VALUE")
        try:
            if name == "windows":
                fixed[name] = tuple(int(v) for v in value.split(","))
            elif name in ("world_size", "seed"):
                fixed[name] = int(value)
            else:
                fixed[name] = value == "true" if name == "uneven" else value
        except ValueError:
            raise CellError(f"{name} cannot be {value!r}: use whole numbers") from None
    Cell.make(framework, **fixed)
    return fixed


def _confirm_by_script(red: list[dict[str, Any]]) -> None:
    """Run the standalone script of every red cell in a process of its own; say which does not confirm it."""
    from truestep.reports import repro

    alarms, cells = 0, []
    for cell in (Cell.from_json(row["cell"]) for row in red):
        try:
            repro.script(cell)
            cells.append(cell)
        except CellError as error:
            print(f"no script {cell.id}: {error}")
    for cell, confirmed, said in repro.execute_many(cells):
        alarms += not confirmed
        print(f"{'confirmed' if confirmed else 'FALSE ALARM'} {cell.id}: {said}", flush=True)
    print(f"{len(red)} red cells, {len(cells) - alarms} confirmed by their standalone scripts, {alarms} not"
          + f", {len(red) - len(cells)} without a script" * (len(red) > len(cells)))  # fmt: skip


def _repro(options: argparse.Namespace) -> int:
    from truestep.reports import repro

    cells = read_cells([options.cell])
    if len(cells) != 1:
        raise CellError(f"{options.cell} holds {len(cells)} cells; name one")
    script = repro.script(cells[0])
    if options.output is None:
        print(script, end="")
    else:
        options.output.write_text(script, encoding="utf-8")
        print(f"wrote {options.output}; run it with: python {options.output}", file=sys.stderr)
    return CLEAN


def _selftest(options: argparse.Namespace) -> int:
    from truestep.fixtures.drivers import driver_of
    from truestep.reports import selftest

    named = options.framework or [f for f in selftest.SOURCES if driver_of(f).version() is not None]
    if unknown := [f for f in named if f not in selftest.SOURCES]:
        raise CellError(f"no seeded faults for {unknown[0]!r}: use one of {', '.join(selftest.SOURCES)}")
    scores = selftest.run(
        named, clean=options.clean, random=options.random, seed=options.seed, fault=options.fault,
        say=lambda text: print(f"truestep: {text}", file=sys.stderr, flush=True),
    )  # fmt: skip
    if options.fault and not scores.trials:
        reason = f": {scores.skipped[0]}" if scores.skipped else f" has {options.fault!r} in its name; without --fault all of them are run"
        raise CellError(f"no seeded fault was run: none of {', '.join(named)}{reason}")
    text = "\n".join(selftest.lines(scores))
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    return CLEAN if scores.ok else FINDINGS


def _patches(options: argparse.Namespace) -> int:
    from contextlib import redirect_stderr
    from io import StringIO

    from truestep import patches

    with redirect_stderr(StringIO()):  # what it would say on stderr is in the table
        records = patches.patch()
        patches.unpatch()
    rows = [(record.id, f"{record.framework} {record.version or '-'}", *_state(record)) for record in records]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return CLEAN


def _state(record: PatchStatus) -> tuple[str, str]:
    """What would become of a patch, and why."""
    if record.state != "pending":
        return record.state, record.reason
    if record.version is None:
        return "absent", f"{record.framework} is not installed"
    return "ready", "truestep.patch() applies it to this version"


def _table(options: argparse.Namespace) -> int:
    from truestep.reports.results import ResultsError, read
    from truestep.reports.table import page

    try:
        results = read(options.results)
    except ResultsError as error:
        raise CellError(str(error)) from None
    for text in results.problems:
        print(f"truestep: {text}", file=sys.stderr)
    print(page(row for _, row in results))
    return CLEAN


def _advisories(options: argparse.Namespace) -> int:
    from truestep.patches import advisories

    for advisory in advisories():
        if options.osv:
            print(json.dumps(advisory.to_osv()))
        else:
            spans = ", ".join(f"{low} up to {high or 'now'}" for low, high in advisory.affected)
            print(f"{advisory.id:<30} {spans:<20} {'patch' if advisory.patch else '     '}  {advisory.title}")
    return CLEAN


def _exec(options: argparse.Namespace) -> int:
    from truestep.wrap import run

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise CellError("exec needs a command: truestep exec -- torchrun train.py")
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
