"""Results files: what a run writes, what the next one takes over, and what happens when something goes wrong in between."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from truestep.reports import pack, results
from truestep.reports.store import Store

from truestep.journal import Journal, Progress

ROOT = Path(__file__).parent.parent
WHERE = {"python": "3.11.0", "packages": {"deepspeed": "0.18.9"}, "truestep": {"version": "0", "code": "c", "commit": "", "dirty": None}}
ASKED = {"patch": False, "setup": []}


def row(name: str = "torch-mlp-W1-K1", verdict: str = "pass", **more: Any) -> dict[str, Any]:
    checks = [{"name": "gradient", "step": 0, "figure": 1e-7, "bound": 5e-7, "noise": 1e-7, "where": "", "widest": 5e-7}]
    cell = {"framework": name.partition("-")[0], "model": "mlp", "knobs": {}, "split": {"world_size": 1, "windows": [1], "uneven": False}}
    return {"family": "any", "question": "Q?", "cell": cell, "id": name, "verdict": verdict, "reason": "", "checks": checks, "diagnosis": None,
            "advisory": "", "besides": [], "versions": {}, "stand_ins": [], "patches": [], "facts": {}, "milliseconds": 1.0, **more}  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]], *, complete: bool | None = True, where: Any = WHERE, resumes: str = "") -> Store:
    store = Store(path)
    store.begin(path.stem, where, ASKED, len(rows), resumes)
    for one in rows:
        store.verdict(one)
    if complete is not None:
        store.end(complete)
    assert store.close() == ""
    return store


def of(path: Path) -> dict[str, str]:
    (environment,) = results.read([path]).environments
    return {name: one["verdict"] for name, one in environment.rows.items()}


# --- reading -------------------------------------------------------------------------------------


def test_what_was_written_is_read_back_with_where_it_was_reached(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [row("torch-mlp-W1-K1"), row("torch-mlp-W1-K2", "wrong")])
    (environment,) = results.read([tmp_path]).environments
    assert of(tmp_path) == {"torch-mlp-W1-K1": "pass", "torch-mlp-W1-K2": "wrong"}
    assert (environment.name, environment.packages, environment.complete) == ("a", {"deepspeed": "0.18.9"}, True)


def test_the_last_verdict_of_a_cell_counts_and_other_packages_are_another_environment(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [row(verdict="wrong")])
    written(path, [row(verdict="pass")])
    assert of(path) == {"torch-mlp-W1-K1": "pass"}
    written(path, [row(verdict="wrong")], where={**WHERE, "packages": {"deepspeed": "0.19.0"}})
    assert [e.name for e in results.read([path]).environments] == ["a", "a (deepspeed 0.19.0)"]


def test_the_first_schema_is_still_read(tmp_path: Path) -> None:
    old = {"schema": "truestep-results-1", **row(versions={"deepspeed": "0.16.9"})}
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    (environment,) = results.read([tmp_path]).environments
    assert (environment.name, environment.packages) == ("old", {"deepspeed": "0.16.9"})
    assert list(environment.rows) == ["torch-mlp-W1-K1"]


def test_a_run_of_the_second_schema_goes_on_in_the_environment_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    old = {"schema": "truestep-results-1", **row(verdict="wrong", versions={"deepspeed": "0.18.9", "python": "3.11.7"})}
    path.write_text(json.dumps(old) + "\n")
    written(path, [row()], where={**WHERE, "packages": {"deepspeed": "0.18.9", "numpy": "2.4"}})
    assert of(path) == {"torch-mlp-W1-K1": "pass"}
    written(path, [row()], where={**WHERE, "packages": {"deepspeed": "0.19.0"}})
    assert len(results.read([path]).environments) == 2


def test_a_torn_line_costs_itself_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [row("torch-mlp-W1-K1"), row("torch-mlp-W1-K2")], complete=None)
    text = path.read_text()
    path.write_text(text[: len(text) - 40])
    read = results.read([path])
    assert list(read.environments[0].rows) == ["torch-mlp-W1-K1"]
    assert len(read.problems) == 1 and "cut off" in read.problems[0]
    written(path, [row("torch-mlp-W1-K3")])  # the next run begins on a line of its own
    assert set(of(path)) == {"torch-mlp-W1-K1", "torch-mlp-W1-K3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no results"), ("{}\n", "holds no results"), ('{"schema": "truestep-results-9"}\n', "upgrade truestep"), ("\0\0", "holds no results")],
)
def test_a_file_that_cannot_be_used_says_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(results.ResultsError, match=said):
        results.read([tmp_path])


@given(st.binary(max_size=300))
def test_no_file_whatsoever_is_a_crash(data: bytes) -> None:
    with suppress(results.ResultsError):
        results.parse(data.decode("utf-8", "replace"), "x.jsonl")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda c: st.lists(c, max_size=3) | st.dictionaries(
    st.sampled_from(["schema", "record", "run", "id", "verdict", "cell", "framework", "cells"]), c, max_size=6), max_leaves=12))  # fmt: skip
def test_nor_is_any_json(data: Any) -> None:
    some = {**data, "schema": "truestep-results-2"} if isinstance(data, dict) else data
    try:
        runs, _ = results.parse(json.dumps(some), "x.jsonl")
    except results.ResultsError:
        return
    assert all(isinstance(one["id"], str) for run in runs for one in run.rows)


# --- the packed matrix ---------------------------------------------------------------------------


def test_a_packed_matrix_holds_every_verdict_and_is_read_like_a_results_file(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [row("torch-mlp-W1-K1"), row("torch-mlp-W1-K2", "wrong", reason="<&>")])
    written(tmp_path / "b.jsonl", [row("torch-mlp-W1-K2", "skipped", reason="no GPU")])
    first = results.read([tmp_path])
    document = pack.pack(first)
    (tmp_path / "m.json").write_text(json.dumps(document, allow_nan=False))
    again = results.read([tmp_path / "m.json"])
    told = [{(e.name, r["id"], r["verdict"], r["reason"], r["cell"]["framework"]) for e, r in one} for one in (first, again)]
    assert told[0] == told[1] and len(told[0]) == 3
    assert [f["id"] for f in document["findings"]] == ["torch-mlp-W1-K2"]


def test_figures_that_are_no_numbers_survive_packing(tmp_path: Path) -> None:
    bad = row(verdict="wrong")
    bad["checks"][0]["figure"] = float("nan")
    written(tmp_path / "a.jsonl", [bad])
    document = pack.pack(results.read([tmp_path]))
    assert json.loads(json.dumps(document, allow_nan=False))["environments"][0]["verdicts"]["figure"] == [None]


# --- going on ------------------------------------------------------------------------------------


def test_a_run_that_did_not_end_is_taken_over_but_for_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = written(path, [row("torch-mlp-W1-K1"), row("torch-mlp-W1-K2", "error"), row("torch-mlp-W1-K3", "skipped")], complete=False)
    one, rows, said = results.resumable(path, "a", WHERE, ASKED)
    assert (one, list(rows)) == (first.run, ["torch-mlp-W1-K1"])
    assert "going on with 1 verdict" in said
    written(path, [row("torch-mlp-W1-K2", "wrong")], complete=False, resumes=one)
    assert set(results.resumable(path, "a", WHERE, ASKED)[1]) == {"torch-mlp-W1-K1", "torch-mlp-W1-K2"}


CHANGES: list[tuple[str, Any, Any, str]] = [
    ("packages", {**WHERE, "packages": {"deepspeed": "0.19.0"}}, ASKED, "deepspeed was 0.18.9, now it is 0.19.0"),
    ("code", {**WHERE, "truestep": {"code": "d"}}, ASKED, "truestep itself has changed"),
    ("patch", WHERE, {**ASKED, "patch": True}, "patch was False"),
]


@pytest.mark.parametrize(("where", "asked", "said"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_nothing_is_taken_over_once_something_has_changed(tmp_path: Path, where: Any, asked: Any, said: str) -> None:
    written(tmp_path / "a.jsonl", [row()], complete=False)
    one, rows, told = results.resumable(tmp_path / "a.jsonl", "a", where, asked)
    assert (one, rows) == ("", {})
    assert said in told


def test_a_run_that_came_to_its_end_is_run_again(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [row()])
    assert results.resumable(tmp_path / "a.jsonl", "a", WHERE, ASKED) == ("", {}, "")


# --- trouble -------------------------------------------------------------------------------------


def test_two_runs_at_once_on_one_file_lose_nothing(tmp_path: Path) -> None:
    path, n = tmp_path / "a.jsonl", 150
    names = [[f"torch-mlp-W1-K{100 * i + k}" for k in range(n)] for i in range(3)]
    script = (
        "import sys, json; from pathlib import Path; from truestep.reports.store import Store\n"
        "store = Store(Path(sys.argv[1])); rows = json.load(sys.stdin); store.begin('a', rows[0], {}, len(rows) - 1)\n"
        "[store.verdict(one) for one in rows[1:]]; store.end(True); assert not store.close()"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, text=True) for _ in names
    ]  # fmt: skip
    threads = [
        threading.Thread(target=writer.communicate, args=(json.dumps([WHERE, *(row(name) for name in some)]),))
        for writer, some in zip(writers, names, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    read = results.read([path])
    assert read.problems == ()
    assert set(read.environments[0].rows) == {name for some in names for name in some}


def test_a_second_run_says_that_another_is_at_work(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [row()], complete=None)  # of this process, which lives
    journal = Journal(tmp_path / "a.jsonl", ASKED, resume=True)
    journal.begin()
    assert "another run" in journal.said and "both are kept" in journal.said
    assert journal.done == {}


def test_a_full_disk_keeps_whole_lines_and_the_rest_elsewhere(tmp_path: Path) -> None:
    script = (
        "import sys, json; from pathlib import Path; from truestep.reports.store import Store\n"
        "store = Store(Path(sys.argv[1])); rows = json.load(sys.stdin); store.begin('a', rows[0], {}, 20)\n"
        "[store.verdict(one) for one in rows[1:]]; store.end(True); print(store.close())"
    )
    rows = [row(f"torch-mlp-W1-K{k}") for k in range(20)]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "full" / "a.jsonl")], cwd=tmp_path, input=json.dumps([WHERE, *rows]),
        capture_output=True, text=True, check=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )  # fmt: skip
    assert "verdicts are kept and tried again" in done.stderr
    (rest,) = tmp_path.glob("*.rest.jsonl") if list(tmp_path.glob("*.rest.jsonl")) else (None,)
    kept = of(tmp_path / "full" / "a.jsonl")
    assert results.read([tmp_path / "full" / "a.jsonl"]).problems == ()
    assert 0 < len(kept) < 20
    if rest is not None:  # as much as fits there; the limit of this test holds for every file
        assert "make room, then append" in done.stdout
    else:
        assert "in this summary only" in done.stdout


def test_what_could_not_be_written_is_written_when_there_is_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from truestep.reports import store as module

    real, broken = module._append, [True]

    def append(path: Path, lines: list[str]) -> None:
        if broken[0]:
            raise OSError(28, "No space left on device")
        real(path, lines)

    monkeypatch.setattr(module, "_append", append)
    store = Store(tmp_path / "a.jsonl")
    store.begin("a", WHERE, ASKED, 2)
    store.verdict(row("torch-mlp-W1-K1"))
    broken[0] = False
    store.verdict(row("torch-mlp-W1-K2"))
    store.end(True)
    assert store.close() == ""
    assert list(of(tmp_path / "a.jsonl")) == ["torch-mlp-W1-K1", "torch-mlp-W1-K2"]


# --- the real thing ------------------------------------------------------------------------------

SELECTION = ["probes/test_torch.py", "-k", "mlp", "-q", "-p", "no:cacheprovider"]


def _pytest(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *SELECTION, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits that it is ignored
    )  # fmt: skip


def _until(done: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)


def test_an_interrupted_run_keeps_its_verdicts_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "torch.jsonl"
    run = _pytest("--truestep-results", str(path))
    _until(lambda: path.exists() and path.read_text().count('"record": "verdict"') >= 3)
    os.kill(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 2, said[-2000:]
    first = of(path)
    assert len(first) >= 3 and not results.read([path]).environments[0].complete
    again = _pytest("--truestep-results", str(path), "--truestep-resume")
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said[-2000:]
    assert "going on with" in said
    (environment,) = results.read([path]).environments
    assert environment.complete
    assert len(environment.rows) > len(first)
    assert not {r["id"] for r in environment.runs[1].rows} & {name for name, verdict in first.items() if verdict == "pass"}


def test_workers_of_xdist_write_one_run(tmp_path: Path) -> None:
    path = tmp_path / "torch.jsonl"
    run = _pytest("--truestep-results", str(path), "-n", "2")
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said[-2000:]
    (environment,) = results.read([path]).environments
    assert (len(environment.runs), environment.complete) == (1, True)
    assert environment.last.cells == len(environment.rows) > 5


def test_progress_says_where_how_far_and_how_long_still() -> None:
    said: list[str] = []
    progress = Progress("known-0.18.9", 4, said.append, every=1e-9)
    progress.count("pass")
    progress.count("wrong")
    progress.tick("torch-mlp-W1-K4")
    assert len(said) == 1
    assert said[0].startswith("truestep known-0.18.9: 2 of 4 cells (50%), 1 red, about ")
    assert said[0].endswith("left; now torch-mlp-W1-K4")
    quiet = Progress("", 4, said.append, every=0)
    quiet.tick()
    assert len(said) == 1
