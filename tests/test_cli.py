"""The command line: one-line errors, documented exit codes, cells from ids and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

RIGHT = "deepspeed-mlp-W1-K2-stage:1"


def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "truestep.cli", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "deepspeed-mlp-W1-K4-stagee:2"), "unknown knob 'stagee'"),
        (("run", "nonsense"), "not a cell id"),
        (("run", "missing.json"), "cannot read missing.json"),
        (("repro", "deepspeed-mlp-W3-K8"), "impossible split"),
        (("exec",), "exec needs a command"),
    ],
)
def test_unusable_input_is_one_line_and_code_2(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_broken_cell_file_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    broken, results = tmp_path / "cell.json", tmp_path / "results.jsonl"
    for text in ("{", '{"framework": "deepspeed", "knobs": {"stage": "7"}}', '[{"model": "mlp"}]', "\x00"):
        broken.write_text(text)
        done = run("run", str(broken), "--results", str(results))
        assert done.returncode == 2, text
        assert len(done.stderr.strip().splitlines()) == 1
        assert not results.exists()


def test_run_judges_ids_and_files(needs_deepspeed: None, tmp_path: Path) -> None:
    from truestep.fixtures.cell import parse

    cells = tmp_path / "cells.json"
    cells.write_text(json.dumps([parse(RIGHT).to_json(), parse(RIGHT).but(windows=4).to_json()]))
    done = run("run", str(cells), "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [r["verdict"] for r in rows] == ["pass", "pass"]
    assert [r["id"] for r in rows] == [RIGHT, "deepspeed-mlp-W1-K4-stage:1"]


def test_a_wrong_cell_is_code_1_and_its_standalone_script_confirms_it(needs_deepspeed: None, tmp_path: Path) -> None:
    # set_train_batch_size moves the accumulation window: wrong in every release that was run
    name = "deepspeed-mlp-W1-K1.8.2-stage:1"
    done = run("run", name)
    assert done.returncode == 1, done.stdout
    assert "micro-batch 8 of 8 has weight 0" in done.stdout
    script = tmp_path / "repro.py"
    assert run("repro", name, "-o", str(script)).returncode == 0
    source = script.read_text()
    assert "truestep" not in source
    alone = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; sys.modules['truestep'] = None; "
                            f"exec(compile(open({str(script)!r}).read(), 'repro.py', 'exec'))"],
                           capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert alone.returncode == 1, alone.stderr[-2000:]
    assert "WRONG with deepspeed" in alone.stdout
    assert "step 2: the gradient consumed is off by" in alone.stdout


def test_patches_and_advisories_are_listed_without_importing_a_framework() -> None:
    done = run("advisories", "--osv")
    assert done.returncode == 0
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"schema_version", "id", "summary", "affected"} <= set(records[0])
    assert any("7967" in r["id"] for r in records)
    assert run("patches").returncode == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(f'"{sys.executable}" -m truestep.cli advisories --osv | head -1', shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_patches_says_what_is_not_installed() -> None:
    states = {(words := line.split())[0]: words[2:4] for line in run("patches").stdout.splitlines()}
    assert all(state in ("ready", "declined", "refused", "absent") for _, state in states.values())
    assert all((version == "-") == (state == "absent") for version, state in states.values())


def test_where_nothing_was_tested_nothing_is_clean() -> None:
    assert run("selftest", "--framework", "torch", "--fault", "nonsense").returncode == 2
    if find_spec("llamafactory") is None:
        assert run("sweep", "--framework", "llamafactory", "-n", "1", "--confirm").returncode == 2


def test_exec_gives_the_commands_own_code() -> None:
    assert run("exec", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    assert run("exec", "--", "no-such-command-anywhere").returncode == 127
    loaded = run(
        "exec", "--", sys.executable, "-c", "import sys; print('truestep.patches' in sys.modules, 'torch' in sys.modules)"
    )
    assert loaded.stdout.strip() == "True False"


def test_a_release_that_was_never_run_is_run_and_said_to_be_unverified(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    told = tmp_path / "transformers-9.9.9.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 9.9.9\n")
    done = run("run", "transformers-llama.lm-W1-K1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "not verified: transformers 9.9.9 is newer than what truestep was run on" in done.stdout
    assert "not verified" not in run("run", "transformers-llama.lm-W1-K1").stdout
