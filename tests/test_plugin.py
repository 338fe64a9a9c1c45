"""The plugin as a user meets it: real pytest runs in processes of their own, on the installed DeepSpeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from truestep.fixtures.drivers import BUILT_IN

ROOT = Path(__file__).parent.parent
RIGHT = "deepspeed-mlp-W1-K4-stage:1"  # of the offload probe, right on every release that was run
WORD = "deepspeed-mlp-W1-K4-stage:1-offload_optimizer:cpu"


def run(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=cwd or ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=300, check=False
    )


def test_list_cells_runs_nothing_and_every_id_parses() -> None:
    from truestep.fixtures.cell import parse

    done = run("probes", "--list-cells", "-q")
    ids = [line for line in done.stdout.splitlines() if line.startswith("deepspeed-")]
    assert done.returncode == 0, done.stdout[-2000:]
    assert len(ids) == len(set(ids)) >= 1000
    assert all(parse(i).id == i for i in ids)
    assert "passed" not in done.stdout


def test_quick_says_where_it_leaves_nothing() -> None:
    pytest.importorskip("transformers")
    done = run("probes/test_trainer.py", "--quick", "-q")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "no cell is left" in done.stdout


def test_one_cell_its_table_and_its_results_file(needs_deepspeed: None, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    done = run("probes", "--cell", WORD, "--truestep-results", str(results))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "offload" in done.stdout
    assert "not selected" in done.stdout
    begin, row, end = [json.loads(line) for line in results.read_text().splitlines()]
    assert (begin["record"], begin["cells"], end["record"], end["complete"]) == ("run", 1, "end", True)
    assert row["schema"] == "truestep-results-2"
    assert (row["id"], row["verdict"], row["family"]) == (WORD, "pass", "offload")
    assert row["versions"]["deepspeed"]
    assert {c["name"] for c in row["checks"]} >= {"initial", "gradient", "loss", "norm", "update", "weights"}


def test_a_red_cell_fails_with_question_figure_weights_and_reproduction(needs_deepspeed: None) -> None:
    done = run(
        "probes", "--cell", WORD, "--truestep-setup", "truestep.fixtures.faults.deepspeed:offload_drops_the_second_micro_batch"
    )
    assert done.returncode == 1
    text = done.stdout
    assert "Keeping the optimizer's state on the CPU must not change the step." in text
    assert "effective weights of the micro-batches: (1, 0, 1, 1)/4   expected 1/4 each" in text
    assert "micro-batch 2 of 4 has weight 0" in text
    assert "not known: no advisory explains this" in text
    assert f"reproduce: truestep run {WORD}" in text
    assert "1 distinct finding" in text


def test_keyword_selection_and_stopping_at_the_first_failure(needs_deepspeed: None) -> None:
    done = run("probes/test_offload.py", "-k", "mlp-W1-K4-stage:1-offload_optimizer:cpu or mlp-W1-K8-stage:1-offload_optimizer:cpu",
               "-x", "--truestep-setup", "truestep.fixtures.faults.deepspeed:offload_drops_the_second_micro_batch")  # fmt: skip
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "stopping after 1 failures" in done.stdout


def test_an_unknown_cell_is_a_usage_error_that_says_what_to_do() -> None:
    done = run("probes", "--cell", "deepspeed-mlp-W1-K5-stage:1")
    assert done.returncode == 4
    assert "truestep run deepspeed-mlp-W1-K5-stage:1" in done.stdout + done.stderr


def test_strict_cells_fails_what_was_not_tested(needs_deepspeed: None) -> None:
    gpu = "deepspeed-mlp-W1-K4-device:cuda"
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU: the cell runs")
    loose, strict = run("probes", "--cell", gpu, "-rs"), run("probes", "--cell", gpu, "--strict-cells")
    assert loose.returncode == 0
    assert "no NVIDIA GPU" in loose.stdout
    assert strict.returncode == 1


def test_without_the_framework_one_line_stands_for_all_its_cells(tmp_path: Path) -> None:
    # an interpreter that sees everything but the frameworks' distributions
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        f"    if name in {BUILT_IN!r}:\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("probes", "-q", env={"PYTHONPATH": path})
    assert done.returncode == 5  # pytest's own: no tests were run
    lines = [line for line in done.stdout.splitlines() if "not installed" in line]
    assert len(lines) == len(BUILT_IN), lines
    assert all("pip install" in line for line in lines)


def test_xdist_gives_the_same_verdicts(needs_deepspeed: None) -> None:
    pytest.importorskip("xdist")
    selection = ["probes/test_offload.py", "-k", "mlp-W1 and stage:1 and not cpu_adam and not bucket"]
    alone, spread = run(*selection), run(*selection, "-n", "2")
    assert alone.returncode == spread.returncode == 0, spread.stdout[-2000:]

    def table(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("offload ", "total "))]

    assert table(alone.stdout) == table(spread.stdout) != []


def test_interrupt_keeps_what_was_found_and_leaves_no_process(needs_deepspeed: None, tmp_path: Path) -> None:
    import signal
    import time

    results = tmp_path / "results.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "probes/test_split.py", "-q", "--truestep-results", str(results)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits that it is ignored
    )  # fmt: skip
    until = time.monotonic() + 120
    while time.monotonic() < until and (not results.exists() or results.read_text().count("\n") < 5):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "truestep" in out
    begin, *rows, end = [json.loads(line) for line in results.read_text().splitlines()]
    assert (begin["record"], end["record"], end["complete"]) == ("run", "end", False)
    assert len(rows) >= 4
    assert all(row["verdict"] in ("pass", "wrong", "incompatible", "skipped") for row in rows)
    alive = subprocess.run(["pgrep", "-f", f"zygote.*--parent {process.pid}( |$)"], capture_output=True, text=True, check=False)
    assert alive.stdout == ""


def test_a_probe_without_cells_here_is_skipped_and_stops_nothing(tmp_path: Path) -> None:
    probe = "from truestep.probes.base import grid, probe\n@probe({cells})\ndef test_{name}(step):\n    'Q?'\n    step.must_be_right()\n"
    (tmp_path / "test_both.py").write_text(
        probe.format(cells="[]", name="none") + probe.format(cells="grid('torch', windows=1)", name="some")
    )
    done = run(str(tmp_path), "-q", "--rootdir", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "1 passed, 1 skipped" in done.stdout


def baseline(path: Path, bug: str, cell: str, expires: str) -> str:
    entry = {"bug": bug, "cells": [cell], "reason": "known, to be cured by the next upgrade", "expires": expires}
    path.write_text(json.dumps({"schema": "truestep-baseline-1", "entries": [entry]}))
    return str(path)




def test_a_baseline_bears_a_finding_until_its_day_and_no_longer(needs_deepspeed: None, tmp_path: Path) -> None:
    fault = ("--truestep-setup", "truestep.fixtures.faults.deepspeed:offload_drops_the_second_micro_batch", "--cell", WORD)
    results = tmp_path / "first.jsonl"
    assert run("probes/test_offload.py", *fault, "--truestep-results", str(results)).returncode == 1
    accepted = tmp_path / "accepted.json"
    made = subprocess.run(
        [sys.executable, "-m", "truestep.cli", "baseline", str(results), "-o", str(accepted), "--reason", "until the upgrade", "--expires", "2999-12-31"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    borne = run("probes/test_offload.py", *fault, "--truestep-baseline", str(accepted), "--truestep-report", str(tmp_path / "report"), "-rx")
    assert borne.returncode == 0, borne.stdout[-2000:]
    assert "accepted until 2999-12-31: until the upgrade" in borne.stdout
    assert {p.name for p in (tmp_path / "report").iterdir()} >= {"report.html", "matrix.json", "junit.xml", "truestep.sarif", "summary.md", "badge.svg"}
    accepted.write_text(accepted.read_text().replace("2999-12-31", "2020-01-01"))
    over = run("probes/test_offload.py", *fault, "--truestep-baseline", str(accepted))
    assert over.returncode == 1
    assert "accepted only until 2020-01-01" in over.stdout and "BASELINE: " in over.stdout


def test_a_stale_entry_fails_under_xdist_too(needs_deepspeed: None, tmp_path: Path) -> None:
    stale = baseline(tmp_path / "b.json", "deepspeed-7967", WORD, "2999-12-31")
    for more in ((), ("-n", "2")):
        done = run("probes/test_offload.py", "--cell", WORD, "--truestep-baseline", stale, *more)
        assert done.returncode == 1, done.stdout[-2000:]
        assert "right by now: remove that from" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--truestep-baseline", "nowhere.json"), "truestep baseline RESULTS -o"),
        (("--truestep-shard", "3/2"), "expected I/N"),
        (("--truestep-shard", "x"), "expected I/N"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run("probes/test_torch.py", *arguments)
    assert done.returncode == 4
    assert said in done.stdout + done.stderr


def _listed(*arguments: str) -> set[str]:
    done = run("probes/test_offload.py", "--list-cells", "-q", *arguments)
    assert done.returncode == 0, done.stdout[-1000:]
    return {line for line in done.stdout.splitlines() if "-W" in line}


def test_shards_are_parts_of_the_whole() -> None:
    every = _listed("-m", "deepspeed")
    parts = [_listed("-m", "deepspeed", "--truestep-shard", f"{i}/3") for i in (1, 2, 3)]
    assert set().union(*parts) == every and sum(map(len, parts)) == len(every)
    assert all(len(every) / 5 < len(part) < len(every) / 2 for part in parts)


def test_markers_select_by_framework_family_and_configuration() -> None:
    some = _listed("-m", "deepspeed and offload and zero2 and offload_cpu and accumulation and not several_ranks", "--strict-markers")
    assert some
    assert all("stage:2" in c and "offload_" in c and "-W1-" in c and "-K1-" not in c for c in some)
