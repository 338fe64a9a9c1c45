"""The suite's own error rate: every seeded fault is found and rightly named, by the check that it says, and no clean cell is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import truestep.probes
from truestep.fixtures.cell import parse
from truestep.fixtures.drivers import driver_of
from truestep.fixtures.faults import KINDS, Fault, faults_of
from truestep.reports import selftest

ALL: dict[str, list[Fault]] = {f: faults_of(*modules) for f, modules in selftest.SOURCES.items()}


@pytest.fixture(scope="module", params=["torch", "deepspeed"])
def scores(request: pytest.FixtureRequest) -> tuple[str, selftest.Scores]:
    framework: str = request.param
    if driver_of(framework).version() is None:
        pytest.skip(f"{framework} is not installed: see README, tests")
    return framework, selftest.run([framework], clean=80, random=90, seed=11)


def test_every_seeded_fault_is_found_by_its_check_alone(scores: tuple[str, selftest.Scores]) -> None:
    framework, found = scores
    missed = [f"{t.fault} in {t.cell}: {t.verdict} {t.checks} {t.said}" for t in found.trials if not (t.found and t.only)]
    assert not missed
    assert {t.fault for t in found.trials} == {f.name for f in ALL[framework]}, found.skipped


def test_nearly_all_are_rightly_named(scores: tuple[str, selftest.Scores]) -> None:
    _, found = scores
    wrong = [f"{t.fault} in {t.cell}: {t.said}" for t in found.trials if not t.named]
    assert len(wrong) <= 0.05 * len(found.trials), wrong


def test_no_clean_cell_is_accused(scores: tuple[str, selftest.Scores]) -> None:
    framework, found = scores
    assert not found.alarms
    assert found.clean[framework]["pass"] >= 50


def test_random_faults_of_the_stated_size_are_found(scores: tuple[str, selftest.Scores]) -> None:
    framework, found = scores
    must = [t for t in found.random if t.size >= selftest.MUST[t.dtype]]
    assert (len(must) >= 30) == (framework == "torch")
    assert not [t for t in must if not t.found]
    told = [t for t in must if t.named or not t.silent]
    assert sum(t.named for t in told) >= 0.95 * len(told), [t.said for t in told if not t.named]
    assert found.weights < 3, "effective weights lie further from the drawn ones than their doubt allows"


def test_cells_repeat_bit_for_bit_in_other_processes(scores: tuple[str, selftest.Scores]) -> None:
    cells, same = scores[1].repeated
    assert cells == same and cells >= 30


def test_what_is_printed_holds_the_scores(scores: tuple[str, selftest.Scores]) -> None:
    text = "\n".join(selftest.lines(scores[1]))
    assert f"Found: {len(scores[1].trials)} of {len(scores[1].trials)} (100.0 %)" in text
    assert "false alarms: 0" in text and "bit for bit" in text
    assert scores[1].ok


@pytest.mark.parametrize("framework", ["transformers", "trl", "accelerate", "openrlhf", "llamafactory"])
def test_a_trainers_faults_are_found_and_named_and_its_clean_cells_are_not_accused(framework: str) -> None:
    if driver_of(framework).version() is None:
        pytest.skip(f"{framework} is not installed: see README, tests")
    found = selftest.run([framework], clean=12, random=0, seed=3)
    assert not [f"{t.fault} in {t.cell}: {t.verdict} {t.checks} {t.said}" for t in found.trials if not (t.found and t.only and t.named)]
    skipped = {  # whose cells need what is not installed here
        f.name for f in ALL[framework] if all(driver_of(framework).supports(parse(cell)) for cell in f.cells)
    }
    assert {t.fault for t in found.trials} == {f.name for f in ALL[framework]} - skipped, found.skipped
    assert not found.alarms
    assert found.repeated[0] == found.repeated[1] > 0


def test_there_are_enough_faults_of_every_kind_and_for_every_probe() -> None:
    every = [fault for some in ALL.values() for fault in some]
    assert len({f.name for f in every}) == len(every) >= 60
    assert {f.kind for f in every} == set(KINDS)
    modules = {p.stem.removeprefix("test_") for p in Path(truestep.probes.__file__).parent.glob("test_*.py")}
    assert {f.probe for f in every} <= modules
    for framework, faults in ALL.items():
        assert _asked(framework) <= {f.probe for f in faults}, framework
    for fault in every:
        assert fault.says and fault.checks and all(parse(cell).id == cell for cell in fault.cells), fault.name


def _asked(framework: str) -> set[str]:
    """The probes that have cells of that framework."""
    found = set()
    for path in Path(truestep.probes.__file__).parent.glob("test_*.py"):
        tests = vars(import_module(f"truestep.probes.{path.stem}")).values()
        marks = [m for test in tests for m in getattr(test, "pytestmark", ()) if m.name == "parametrize"]
        if any(p.values[0].framework == framework for m in marks for p in m.args[1]):
            found.add(path.stem.removeprefix("test_"))
    return found


def test_a_fault_leaves_no_trace(judged: Callable[..., dict[str, Any]]) -> None:
    from truestep.fixtures.workers import Pool

    cells = [parse("torch-mlp-W1-K4"), parse("torch-mlp-W1-K4x2-optimizer:adam")]
    with Pool("torch", cores=1, confirm=False) as pool:  # one process: every cell runs where the faults have been
        before = {c: pool.submit([c])[c].result() for c in cells}
        for fault in ALL["torch"]:
            pool.submit([parse(fault.cells[0])], within=fault.name)[parse(fault.cells[0])].result()
        after = {c: pool.submit([c])[c].result() for c in cells}
    assert [before[c]["checks"] for c in cells] == [after[c]["checks"] for c in cells]
    assert not pool.leaks


def test_an_unknown_fault_is_an_error_of_its_cell_alone() -> None:
    from truestep.fixtures.workers import Pool

    cell = parse("torch-mlp-W1-K2")
    with Pool("torch", confirm=False) as pool:
        bad = pool.submit([cell], within="truestep.fixtures.faults.plain:nothing")[cell].result()
        good = pool.submit([cell])[cell].result()
    assert bad["verdict"] == "error" and "nothing" in bad["reason"]
    assert good["verdict"] == "pass"


@pytest.mark.parametrize(("size", "verdict"), [(0.01, "error"), (1e-9, "wrong")])
def test_what_is_red_is_so_in_a_fresh_process_too(size: float, verdict: str) -> None:
    """Rounding may differ between processes, a figure may not."""
    from truestep.fixtures.workers import Pool

    cell = parse("torch-mlp-W1-K2")
    with Pool("torch") as pool:
        found = pool.submit([cell], within=f"truestep.fixtures.faults.drawn:another_in_every_process(0:{size})")[cell].result()
    assert found["verdict"] == verdict
    assert ("not repeatable" in found["reason"]) == (verdict == "error")
