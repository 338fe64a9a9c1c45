"""The pytest plugin: options, scheduling of the selected cells, and the report at the end.

Thin on purpose: loaded by every pytest run where truestep is installed, it imports nothing heavy.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from truestep.step import Step as Step  # probes name it from here

if TYPE_CHECKING:
    from truestep.fixtures.cell import Cell
    from truestep.gating import Gate
    from truestep.journal import Journal, Progress
    from truestep.suite import Suite

KEY = "truestep"  # of the user property that carries a verdict from a worker to the report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("truestep", "does the framework take the optimizer step that you think it takes?")
    group.addoption("--patch", action="store_true", help="apply truestep's patches in the workers, then judge")
    group.addoption("--quick", action="store_true", help="a dozen cheap cells (an MLP on one rank) of every probe that has some")
    group.addoption("--list-cells", action="store_true", help="print the ids of the selected cells and run nothing")
    group.addoption(
        "--expect-known", action="store_true", help="green exactly when the findings are those the advisories predict"
    )
    group.addoption("--strict-cells", action="store_true", help="incompatible, not-triggered and skipped cells fail too")
    group.addoption("--cell", action="append", default=[], metavar="ID", help="only this cell (repeatable)")
    group.addoption("--truestep-results", metavar="FILE", help="append every verdict to FILE as a JSON line")
    group.addoption("--truestep-resume", action="store_true",
                    help="go on where the last run of that FILE stopped, if no package, option or source has changed since")
    group.addoption("--truestep-baseline", metavar="FILE",
                    help="findings that are accepted, each with a reason and a last day (truestep baseline); one that is over or right by now fails")
    group.addoption("--truestep-report", metavar="DIR", help="at the end write HTML, JSON, JUnit, SARIF, Markdown and a badge to DIR")
    group.addoption("--truestep-shard", metavar="I/N", help="the I-th of N parts of the selected cells, the same on every machine")
    group.addoption("--truestep-progress", type=float, default=30.0, metavar="SECONDS",
                    help="a line this often says how far the run is and how long it still takes (default 30, 0 for none)")  # fmt: skip
    group.addoption("--truestep-setup", action="append", default=[], metavar="MODULE:FUNCTION",
                    help="call this in every worker before its first cell (for seeded faults)")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    from truestep.gating import markers

    for name, text in markers().items():
        config.addinivalue_line("markers", f"{name}: {text}")
    config.pluginmanager.register(_Run(config), "truestep-run")


class _Run:
    """The state of one session: selected cells, the suite, and the verdicts reported so far."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.suite: Suite | None = None
        self.rows: list[dict[str, Any]] = []
        self.missing: dict[str, tuple[int, str]] = {}  # framework -> (cells not run, why)
        self.deselected = 0
        self.listed = False
        self.leaks: list[str] = []
        self.journal: Journal | None = None
        self.progress: Progress | None = None
        self.cells = 0  # that were selected; under xdist as its workers tell
        self.unwritten = ""
        self.gate: Gate | None = None
        self.complaints: list[str] = []
        self.words: set[str] = set()

    # --- selection -------------------------------------------------------------------------------

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Markers for ``-m``: the framework, the family and words of the configuration."""
        if (cell := _cell(item)) is None:
            return
        from truestep.gating import words

        for word in (_family(item), *words(cell)):
            if word not in self.words:
                self.words.add(word)  # --strict-markers knows a family or a framework from outside only so
                self.config.addinivalue_line("markers", f"{word}: cells of {word} (truestep)")
            item.add_marker(word)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if not any(_cell(item) for item in items):
            return
        from truestep.fixtures.drivers import driver_of
        from truestep.gating import in_shard

        part = self._options()
        wanted = set(config.getoption("--cell"))
        keep, drop = [], []
        for item in items:
            cell = _cell(item)
            if cell is None:
                keep.append(item)
            elif driver_of(cell.framework).version() is None and not config.getoption("--list-cells"):
                count, _ = self.missing.get(cell.framework, (0, ""))
                self.missing[cell.framework] = (count + 1, str(driver_of(cell.framework).supports(cell)))
                drop.append(item)
            elif (wanted and cell.id not in wanted) or (
                config.getoption("--quick") and cell not in item.function.truestep_quick  # type: ignore[attr-defined]
            ) or (part is not None and not in_shard(cell, part)):
                drop.append(item)
            else:
                keep.append(item)
        if wanted - {c.id for item in items if (c := _cell(item))}:
            unknown = sorted(wanted - {c.id for item in items if (c := _cell(item))})[0]
            raise pytest.UsageError(f"--cell {unknown}: no probe has this cell; run it by itself: truestep run {unknown}")
        self.deselected = len(drop) - sum(count for count, _ in self.missing.values())
        if drop:
            config.hook.pytest_deselected(items=drop)
        items[:] = keep

    def _options(self) -> tuple[int, int] | None:
        """The shard; what cannot be used is said before anything runs."""
        from truestep.gating import Gate, shard
        from truestep.reports.baseline import BaselineError

        try:
            if path := self.config.getoption("--truestep-baseline"):
                self.gate = Gate.load(Path(path))
            text = self.config.getoption("--truestep-shard")
            return shard(text) if text else None
        except (BaselineError, ValueError) as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(f"{error.filename}: {error.strerror}; write a baseline with truestep baseline RESULTS -o FILE") from None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        cells = list(dict.fromkeys(c for item in session.items if (c := _cell(item))))
        if self.config.getoption("--list-cells"):
            self.listed = True
            for cell in cells:
                print(cell.id)
            session.items.clear()
            return
        if cells and not self.config.option.collectonly and not _is_controller(self.config):
            worker = hasattr(self.config, "workerinput")
            self.cells = len(cells)
            self.journal = self._journal()
            if self.journal is not None and not worker:
                self._begin(self.journal, len(cells))
            if not worker:
                self._start_progress(len(cells) - len(self.journal.done if self.journal else ()))
            self.suite = self._open(cores=1 if worker else None)
            for item in session.items:
                if (one := _cell(item)) is not None:
                    self.suite.told.setdefault(one.id, {"family": _family(item), "question": _question(item)})
            if not worker:  # under xdist a worker learns its share item by item
                self.suite.submit(cells)

    def _open(self, cores: int | None) -> Suite:
        from truestep.suite import Suite

        return Suite(
            patch=self.config.getoption("--patch"),
            setup=self.config.getoption("--truestep-setup"),
            cores=cores,
            journal=self.journal,
            progress=self.progress,
        )

    # --- the results file and how far the run is ----------------------------------------------------

    def _journal(self) -> Journal | None:
        from truestep.journal import Journal

        if not (path := self.config.getoption("--truestep-results")):
            return None
        given = getattr(self.config, "workerinput", {})
        options = {name: self.config.getoption(f"--{name.replace('_', '-')}") for name in ("patch", "quick", "expect_known", "cell")}
        options |= {"setup": self.config.getoption("--truestep-setup"), "k": self.config.option.keyword, "m": self.config.option.markexpr}
        return Journal(
            Path(path), options, resume=self.config.getoption("--truestep-resume"),
            run=given.get("truestep_run", ""), resumes=given.get("truestep_resumes", ""),
        )  # fmt: skip

    def _begin(self, journal: Journal, cells: int = 0) -> None:
        journal.begin(cells)
        if journal.said:
            self._say(f"truestep: {journal.said}")

    def _start_progress(self, cells: int) -> None:
        from truestep.journal import Progress

        name = self.journal.name if self.journal else ""
        self.progress = Progress(name, max(0, cells), self._say, self.config.getoption("--truestep-progress"))

    def _say(self, line: str) -> None:
        """Between pytest's own dots, and past its capturing."""
        reporter, capture = map(self.config.pluginmanager.get_plugin, ("terminalreporter", "capturemanager"))
        if reporter is not None:
            with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(line)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Under xdist: the controller begins the run, its workers write to it."""
        if self.journal is None and (journal := self._journal()) is not None:
            self.journal = journal
            self._begin(journal)
        if self.progress is None:
            self._start_progress(0)
        if self.journal is not None:
            node.workerinput |= {"truestep_run": self.journal.store.run, "truestep_resumes": self.journal.resumes}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.cells = len(ids)
        if self.progress is not None:
            self.progress.total = len(ids)

    # --- running ---------------------------------------------------------------------------------

    @pytest.fixture(scope="session")
    def check_step(self, request: pytest.FixtureRequest) -> Any:
        """``truestep.check_step``: your own training step, judged as a framework's is (docs/check_step.md)."""
        from truestep.check import fixture

        return fixture(request)

    @pytest.fixture
    def step(self, request: pytest.FixtureRequest) -> Step:
        """The step of this item's cell, judged: ``step.must_be_right()``."""
        if broken := getattr(request.param, "reason", ""):  # probes.base.Broken
            pytest.fail(broken, pytrace=False)
        assert self.suite is not None
        cell: Cell = request.param
        verdict = self.suite.verdict(cell)
        question = _question(request.node)
        row = {"family": _family(request.node), "question": question, **verdict.to_json()}
        request.node.user_properties.append((KEY, json.dumps(row)))
        return Step(verdict, cell, question, self.config, self.gate)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(self.config, "workerinput"):
            return
        if report.when == "teardown":
            return
        for name, value in report.user_properties:
            if name == KEY and (report.when == "call" or report.outcome != "passed"):
                self.rows.append(json.loads(str(value)))
                if self.progress is not None and self.suite is None:
                    self.progress.count(self.rows[-1]["verdict"])
                    self.progress.tick()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.suite is not None:
            if self.rows and exitstatus in (0, 1) and not hasattr(self.config, "workerinput"):
                self.rows = self.suite.detailed(self.rows)  # what is reported is diagnosed down to samples and tokens
            self.suite.close()
            self.leaks = self.suite.leaks
        if self.journal is not None:
            complete = exitstatus in (0, 1) and not self.leaks and len({row["id"] for row in self.rows}) >= self.cells
            self.unwritten = self.journal.end(complete, self.cells)
        if self.rows and not hasattr(self.config, "workerinput"):
            self._conclude(complete=exitstatus in (0, 1))
        if (self.leaks or self.unwritten or self.complaints) and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.listed and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    def _conclude(self, complete: bool) -> None:
        """The baseline against all rows, and the report of the session."""
        if self.gate is None:
            self._options()  # under xdist the controller collected nothing
        if self.gate is not None:
            self.complaints = self.gate.complaints(self.rows)
        if folder := self.config.getoption("--truestep-report"):
            from truestep.gating import write_report

            name = self.journal.name if self.journal is not None else "pytest"
            try:
                write_report(Path(folder), self.rows, name, {"patch": self.config.getoption("--patch")}, complete, self.gate)
            except OSError as error:
                self.unwritten = f"the report could not be written to {error.filename}: {error.strerror}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.deselected and not self.cells and not self.listed and self.config.getoption("--quick"):
            terminalreporter.write_line("truestep: no cell is left; --quick keeps cheap ones only (an MLP on one rank), leave it out")
        if not self.rows and not self.missing:
            return
        from truestep.reports import terminal

        for line in terminal.summary(
            self.rows, self.missing, self.deselected,
            expected=self.config.getoption("--expect-known"), patched=self.config.getoption("--patch"),
            width=terminalreporter._tw.fullwidth,
        ):  # fmt: skip
            terminalreporter.write_line(line)
        for text in self.leaks:
            terminalreporter.write_line(f"NOT TO BE TRUSTED: {text}", red=True)
        for text in self.complaints:
            terminalreporter.write_line(f"BASELINE: {text}", red=True)
        if self.unwritten:
            terminalreporter.write_line(f"RESULTS: {self.unwritten}", red=True)


def _family(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def _question(item: pytest.Item) -> str:
    return " ".join((getattr(item, "function", None).__doc__ or item.name).split())


def _cell(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("step") if callspec is not None and item.get_closest_marker("truestep") else None
    # neither probes.base.Broken, whose item fails by itself, nor what pytest puts where a grid is empty
    return found if hasattr(found, "split") else None


def _is_controller(config: pytest.Config) -> bool:
    """Under ``-n`` the controller collects nothing and runs nothing itself."""
    return bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")
