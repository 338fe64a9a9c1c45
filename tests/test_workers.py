"""Workers with the real DeepSpeed: a cell that dies, hangs or is killed costs that cell alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from truestep.fixtures.cell import Cell
from truestep.fixtures.workers import Pool

CELLS = [Cell.make("deepspeed", windows=k, stage=s, seed=seed) for seed in (1, 2) for s in (0, 1, 2) for k in (1, 2, 4)]


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            child = int(status.parent.name)
            found |= {child} | _descendants(child)
    return found


def _wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _records(pool: Pool, cells: list[Cell]) -> list[dict[str, Any]]:
    return [f.result(timeout=120) for f in pool.submit(cells).values()]


def test_a_worker_killed_in_a_cell_costs_that_cell_alone(needs_deepspeed: None) -> None:
    sleeper = CELLS[4]
    before = _descendants(os.getpid())
    with Pool("deepspeed", setup=["worker_faults:sleep_in_one_cell"], cores=1) as pool:
        futures = pool.submit(CELLS)

        def kill_the_sleeper() -> bool:
            for child in list(pool._children.values()):
                if (
                    child.job is not None
                    and child.job.cell == sleeper
                    and child.deadline - time.monotonic() < pool.timeout - 0.5
                ):
                    for pid in child.pids.values():
                        os.kill(pid, signal.SIGKILL)
                    return True
            return False

        assert _wait_until(kill_the_sleeper, 60)
        records = [f.result(timeout=120) for f in futures.values()]
    wrong = [r for r in records if r["verdict"] != "pass"]
    assert [(r["id"], r["verdict"]) for r in wrong] == [(sleeper.id, "error")]
    assert "died" in wrong[0]["reason"]
    assert _wait_until(lambda: _descendants(os.getpid()) <= before), "orphans are left"


def test_a_cell_that_sleeps_for_ever_times_out_alone(needs_deepspeed: None) -> None:
    before = _descendants(os.getpid())
    with Pool("deepspeed", setup=["worker_faults:sleep_in_one_cell"], timeout=3) as pool:
        records = _records(pool, CELLS)
    assert [(r["id"], r["verdict"]) for r in records if r["verdict"] != "pass"] == [(CELLS[4].id, "timeout")]
    assert _wait_until(lambda: _descendants(os.getpid()) <= before), "orphans are left"


def test_a_rank_that_dies_takes_its_peer_along_and_nothing_else(needs_deepspeed: None) -> None:
    cells = [Cell.make("deepspeed", world_size=2, windows=k, seed=seed) for seed in (1, 2) for k in (1, 2)]
    with Pool("deepspeed", setup=["worker_faults:rank_one_dies_in_one_cell"], timeout=20) as pool:
        records = _records(pool, cells)
    assert [(r["id"], r["verdict"]) for r in records if r["verdict"] != "pass"] == [(cells[2].id, "error")]


def test_a_killed_zygote_is_replaced(needs_deepspeed: None) -> None:
    with Pool("deepspeed", cores=1) as pool:
        futures = pool.submit(CELLS)
        assert _wait_until(lambda: any(f.done() for f in futures.values()), 60)
        assert pool._zygote is not None
        pool._zygote.kill()
        records = [f.result(timeout=120) for f in futures.values()]
    assert sum(r["verdict"] == "error" for r in records) <= 1
    assert all(r["verdict"] in ("pass", "error") for r in records)


def test_children_die_with_their_parent(needs_deepspeed: None, tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys, time\n"
        "from truestep.fixtures.workers import Pool\n"
        "from truestep.fixtures.cell import Cell\n"
        "pool = Pool('deepspeed')\n"
        "[f.result() for f in pool.submit([Cell.make('deepspeed')]).values()]\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "ready"
    family = _descendants(parent.pid)
    assert len(family) >= 2  # the zygote and a child
    parent.kill()
    parent.wait()
    assert _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


def test_a_framework_that_cannot_be_imported_is_one_error_for_each_cell(needs_deepspeed: None, tmp_path: Path) -> None:
    (tmp_path / "deepspeed.py").write_text("raise ImportError('broken on purpose')")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), before])
    try:
        with Pool("deepspeed") as pool:
            records = _records(pool, CELLS[:3])
    finally:
        os.environ["PYTHONPATH"] = before
    assert {r["verdict"] for r in records} == {"error"}
    assert all("broken on purpose" in r["reason"] for r in records)


def test_the_same_cells_twice_give_the_same_figures_bit_for_bit(needs_deepspeed: None) -> None:
    cells = [*CELLS, *(Cell.make("deepspeed", world_size=2, windows=[2, 2], stage=s) for s in (0, 1, 2, 3))]
    runs = []
    for order in (cells, cells[::-1]):
        with Pool("deepspeed") as pool:
            runs.append({r["id"]: (r["verdict"], r["checks"]) for r in _records(pool, order)})
    assert runs[0] == runs[1]


def test_leaked_state_is_noticed_by_the_canary(needs_deepspeed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truestep.fixtures.workers.CANARY_EVERY", 3)
    warned: list[str] = []
    monkeypatch.setattr("truestep.fixtures.workers.warn", warned.append)
    done = threading.Event()
    with Pool("deepspeed", setup=["worker_faults:leak_state_after_some_cells"], cores=1) as pool:
        records = _records(pool, CELLS)
        done.set()
    assert any("leaked state" in text for text in warned)
    assert {r["verdict"] for r in records} <= {"pass", "wrong", "error"}
