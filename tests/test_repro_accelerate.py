"""Standalone scripts of hand-written loops (accelerate's, PyTorch's): short, free of truestep, and of the verdict's figure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from truestep.fixtures.cell import Cell, CellError, parse
from truestep.patches import catalogue
from truestep.probes.pairs import random_cells
from truestep.reports import repro

from truestep.suite import Suite

pytest.importorskip("accelerate")

ADVISORIES = [a for a in catalogue.advisories() if a.framework == "accelerate"]
GREEN = (
    "accelerate-mlp-W1-K4.4.2b1-objective:sequence_mean-via:no_sync",
    "accelerate-mlp_unused-W2-K2x2-optimizer:adam-clipping:tight",
)
TORCH = (
    "torch-mlp-W2-K4-parallel:ddp",
    "torch-mlp_unused-W2-K3.1-optimizer:adam-parallel:fsdp2",
    "torch-mlp_tied-W1-K2x2-clipping:tight",
)
#: run in front of a script: truestep cannot be imported, a fault may be put into the framework
_ALONE = """
import runpy, sys

class NoTruestep:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "truestep":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NoTruestep())
FAULT
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def alone(cell: str, folder: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script of that cell in a process of its own that cannot import truestep."""
    script = folder / "issue.py"
    script.write_text(repro.script(parse(cell)), encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run([sys.executable, "-I", "-c", _ALONE.replace("FAULT", fault), str(script)],
                          capture_output=True, text=True, timeout=300, check=False, env=clean | {"OMP_NUM_THREADS": "1"}, cwd=folder)  # fmt: skip


@pytest.fixture
def suite() -> Iterator[Suite]:
    suite = Suite()
    yield suite
    suite.close()


def possible(cell: Cell) -> bool:
    return cell.facts().get("engine") != "deepspeed" or find_spec("deepspeed") is not None


def test_a_script_alone_finds_a_right_step_right(tmp_path: Path) -> None:
    done = alone(GREEN[0], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "step 3: gradient is off by " in done.stdout
    assert "RIGHT with accelerate" in done.stdout


def test_a_script_alone_sees_a_fault(tmp_path: Path) -> None:
    fault = ("import accelerate\nright = accelerate.Accelerator.backward\n"
             "accelerate.Accelerator.backward = lambda self, loss: right(self, 1.001 * loss)")  # fmt: skip
    done = alone(GREEN[0], tmp_path, fault)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert re.search(r"step 1: gradient is off by 0\.001 in .*<- WRONG", done.stdout)
    assert "WRONG with accelerate" in done.stdout


def test_what_the_framework_raises_is_printed_and_code_2(tmp_path: Path) -> None:
    fault = ("import accelerate\ndef refuse(*a, **k): raise ValueError('not like this')\n"
             "accelerate.Accelerator.backward = refuse")  # fmt: skip
    done = alone(GREEN[0], tmp_path, fault)
    assert done.returncode == 2
    assert "REFUSED by accelerate <class 'ValueError'> not like this" in done.stdout


def test_scripts_are_short_and_hold_only_what_the_cell_needs() -> None:
    shown = [parse(name) for name in (*GREEN, *TORCH, *(a.cell for a in ADVISORIES))]
    cells = [*shown, *random_cells("accelerate", 100, seed=11)]
    lengths = {}
    for cell in cells:
        source = repro.script(cell)
        compile(source, cell.id, "exec")
        assert "truestep" not in source
        lines = source.splitlines()
        assert max(map(len, lines[1:])) <= 125, cell.id
        lengths[cell.id] = len(lines)
        f = cell.facts()
        needs = {
            "os.fork": cell.split.world_size > 1,
            "scheduler": f["schedule"] == "linear",
            "clip_grad_norm_": f["clipping"] in ("tight", "loose"),
            "load_state": f["checkpoint"] == "reload",
            "import deepspeed": False,
            "GatheredParameters": f.get("engine") == "deepspeed" and f["stage"] == 3,
            "class ByEpoch": f.get("sampler") == "epoch",
            "fully_shard": str(f.get("parallel")).startswith("fsdp2"),
            "transformers": cell.task == "lm",
        }
        assert {text: text in source for text in needs} == needs, cell.id
    assert {cell.id: lengths[cell.id] for cell in shown if lengths[cell.id] > 105} == {}
    assert max(lengths.values()) <= 120


@pytest.mark.parametrize(
    "name", ["torch-mlp-W1-K4-dtype:bf16", "torch-mlp-W1-K2x2-checkpoint:reload", "torch-mlp-W1-K4-loss_scale:static"]
)
def test_a_cell_that_no_template_can_express_says_so(name: str) -> None:
    with pytest.raises(CellError, match="no standalone script"):
        repro.script(parse(name))


def test_scripts_agree_with_the_verdicts_to_the_figure(suite: Suite) -> None:
    """Of every advisory's cell and of some that are right: model and samples are the same, the code is not."""
    cells = [cell for cell in map(parse, (*GREEN, *TORCH, *(a.cell for a in ADVISORIES))) if possible(cell)]
    suite.submit(cells)
    verdicts = {cell.id: suite.verdict(cell) for cell in cells}
    assert {verdicts[parse(name).id].verdict for name in (*GREEN, *TORCH)} == {"pass"}
    for cell, wrong, said in repro.execute_many(cells):
        verdict = verdicts[cell.id]
        if verdict.verdict == "pass":
            assert not wrong and "RIGHT with" in said, (cell.id, said)
        if verdict.verdict in ("wrong", "by-design"):
            assert wrong, (cell.id, said)
            worst = verdict.worst
            assert worst is not None
            where = worst.where.removeprefix("net.")
            figures = re.findall(rf"is off by ([\d.e-]+) in {re.escape(where)} |[(,] ?{re.escape(where)} ([\d.e-]+)", said)
            if worst.name == "lr":
                figures = re.findall(r"learning rate .* is off by ([\d.e-]+)()", said)
            assert [float(a or b) for a, b in figures] == pytest.approx([worst.figure], rel=0.03), (
                cell.id,
                said,
                verdict.reason,
            )
