"""Standalone scripts: short, free of truestep, and right about what the framework did."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from truestep.fixtures.cell import CellError, parse
from truestep.probes.pairs import random_cells
from truestep.reports import repro

WORD = "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu"  # the cell of #7967
RELOAD = "deepspeed-mlp-W1-K2x2-stage:2-checkpoint:reload"
#: the path of an unpacked DeepSpeed 0.18.9 (pip install --no-deps --target), to see #7967 as it was
OLD = os.environ.get("TRUESTEP_DEEPSPEED_0_18_9", "")

#: run in front of a script: truestep cannot be imported, a fault may be put into the framework
_ALONE = """
import runpy, sys

class NoTruestep:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "truestep":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, NoTruestep())
sys.path[:0] = sys.argv[2:]
try:
    import truestep
except ModuleNotFoundError:
    print("without truestep")
FAULT
runpy.run_path(sys.argv[1], run_name="__main__")
"""
#: a backward of which ``change(engine, loss, k)`` makes the loss of the k-th micro-batch of a window
_BACKWARD = """
from deepspeed.runtime.engine import DeepSpeedEngine as Engine
backward = Engine.backward
def seeded(engine, loss, *rest, **options):
    return backward(engine, change(engine, loss, engine.micro_steps % engine.gradient_accumulation_steps()), *rest, **options)
Engine.backward = seeded
"""
_AS_IN_7967 = f"""
def change(engine, loss, k):
    return loss * 0.0 if engine.optimizer.cpu_offload and k in (1, 2) else loss
{_BACKWARD}"""


def alone(cell: str, folder: Path, fault: str = "", *paths: str) -> subprocess.CompletedProcess[str]:
    """Run the script of that cell in a process of its own that cannot import truestep."""
    script = folder / "issue.py"
    script.write_text(repro.script(parse(cell)), encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    done = subprocess.run([sys.executable, "-I", "-c", _ALONE.replace("FAULT", fault), str(script), *paths],
                          capture_output=True, text=True, timeout=300, check=False, env=clean, cwd=folder)  # fmt: skip
    assert "without truestep" in done.stdout, done.stderr[-2000:]
    return done


def test_the_script_of_7967_is_short_and_finds_the_installed_release_right(needs_deepspeed: None, tmp_path: Path) -> None:
    lines = repro.script(parse(WORD)).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    done = alone(WORD, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "effective weights of the micro-batches: [1.0, 1.0, 1.0, 1.0]" in done.stdout
    assert "expected:  [1.0, 1.0, 1.0, 1.0]" in done.stdout
    assert "<- WRONG" not in done.stdout


def test_the_script_of_7967_sees_the_bug_put_back(needs_deepspeed: None, tmp_path: Path) -> None:
    done = alone(WORD, tmp_path, _AS_IN_7967)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "effective weights of the micro-batches: [1.0, 0.0, 0.0, 1.0]" in done.stdout
    assert "expected:  [1.0, 1.0, 1.0, 1.0]" in done.stdout
    assert "WRONG with deepspeed" in done.stdout


@pytest.mark.skipif(not Path(OLD, "deepspeed").is_dir(), reason="TRUESTEP_DEEPSPEED_0_18_9 names no unpacked DeepSpeed 0.18.9")
def test_the_script_of_7967_sees_the_bug_in_0_18_9(needs_deepspeed: None, tmp_path: Path) -> None:
    done = alone(WORD, tmp_path, "", OLD)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "effective weights of the micro-batches: [1.0, 0.0, 0.0, 1.0]" in done.stdout
    assert "WRONG with deepspeed 0.18.9" in done.stdout


@pytest.mark.parametrize(
    ("cell", "fault", "says"),
    [
        (WORD, "import torch\nstep = torch.optim.SGD.step\n"
               "def spoiled(self, *a, **k):\n"
               "    step(self, *a, **k)\n"
               "    for state in self.state.values(): state['momentum_buffer'] *= float('nan')\n"
               "torch.optim.SGD.step = spoiled",
         "the gradient consumed is off by nan"),
        (WORD, "from deepspeed.runtime.engine import DeepSpeedEngine as Engine\n"
               "norm = Engine.get_global_grad_norm\nEngine.get_global_grad_norm = lambda engine: norm(engine) * 1.001",
         "the reported norm is off by 0.001"),
        (WORD + "-read:grad", "import deepspeed.utils\nread = deepspeed.utils.safe_get_full_grad\n"
                              "deepspeed.utils.safe_get_full_grad = lambda p: 2 * read(p)",
         "safe_get_full_grad is off by 1 "),
        (WORD, "import deepspeed.utils\nread = deepspeed.utils.safe_get_full_fp32_param\n"
               "deepspeed.utils.safe_get_full_fp32_param = lambda p: read(p) + 1e-6",
         "before any step: safe_get_full_fp32_param is off by"),
        (WORD, "import torch\ninit = torch.optim.SGD.__init__\n"
               "torch.optim.SGD.__init__ = lambda self, p, lr, **o: init(self, p, lr=2 * lr, **o)",
         "the update is off by"),
        (RELOAD, "from deepspeed.runtime.engine import DeepSpeedEngine as Engine\nload = Engine.load_checkpoint\n"
                 "def keep(engine, *a, **k):\n"
                 "    old = [p.detach().clone() for p in engine.module.parameters()]\n"
                 "    load(engine, *a, **k)\n"
                 "    for p, q in zip(engine.module.parameters(), old): p.data.copy_(q)\n"
                 "Engine.load_checkpoint = keep",
         "step 2: what forward loaded is off by"),
        (RELOAD, "from deepspeed.runtime.engine import DeepSpeedEngine as Engine\n"
                 "Engine.load_checkpoint = lambda *a, **k: None",
         "step 2: the master copy loaded is off by"),
        ("deepspeed-mlp-W2-K2", "from deepspeed.runtime.engine import DeepSpeedEngine as Engine\n"
                                "Engine.buffered_allreduce_fallback = lambda *a, **k: None",
         "rank 1, against rank 0, is off by"),
    ],
    ids=["nan", "norm", "reading-gradients", "reading-weights", "update", "loaded-weights", "loaded-copy", "ranks"],
)  # fmt: skip
def test_every_check_of_a_script_can_fail(needs_deepspeed: None, tmp_path: Path, cell: str, fault: str, says: str) -> None:
    done = alone(cell, tmp_path, fault)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert any(says in line and line.endswith("<- WRONG") for line in done.stdout.splitlines()), done.stdout


def test_what_the_framework_raises_is_printed_and_code_2(needs_deepspeed: None, tmp_path: Path) -> None:
    fault = f"def change(engine, loss, k): raise RuntimeError('not on this machine')\n{_BACKWARD}"
    done = alone(WORD, tmp_path, fault)
    assert done.returncode == 2
    assert "REFUSED by deepspeed" in done.stdout
    assert "RuntimeError not on this machine" in done.stdout


PLAIN = (
    "deepspeed-mlp-W1-K4",
    "deepspeed-mlp-W1-K1-stage:1",
    "deepspeed-mlp-W1-K8u-stage:2",
    "deepspeed-mlp_frozen-W1-K3-stage:1-clipping:loose",
    "deepspeed-mlp-W1-K4-stage:1-dtype:bf16",
    "deepspeed-mlp-W1-K4-stage:1-optimizer:adam",
    "deepspeed-mlp-W1-K2-stage:2-accumulate:boundary-batch:equal",
    "deepspeed-llama-W1-K4-stage:1",
)
FULL = (
    "deepspeed-llama-W2-K2x3-stage:2-dtype:bf16-optimizer:adam-checkpoint:reload",
    "deepspeed-mlp_tied-W2-K3.1.4u-stage:1-optimizer:cpu_adam-offload_optimizer:cpu-clipping:tight",
    "deepspeed-mlp-W2-K2x3-dtype:bf16-optimizer:adam-checkpoint:reload",
    "deepspeed-qwen2-W1-K4x3-stage:3-offload_param:cpu-returns:output-accumulate:coalesce",
    "deepspeed-mlp_unused-W1-K3.1.4-stage:3-batch:shuffled-checkpoint:reload",
    "deepspeed-mlp-W3-K2-batch:padded-objective:sequence_mean-accumulate:no_sync",
)


def test_scripts_are_short_and_hold_only_what_the_cell_needs() -> None:
    def lines(cell: str) -> int:
        return len(repro.script(parse(cell)).splitlines())

    assert {cell: lines(cell) for cell in PLAIN if lines(cell) > 60} == {}
    assert {cell: lines(cell) for cell in FULL if lines(cell) > 80} == {}
    cells = random_cells("deepspeed", 200, seed=11)
    long = [cell.id for cell in cells if lines(cell.id) > 80]
    assert len(long) <= 2, long  # reloading, at stage 3 or on two ranks, and three more features
    for cell in cells + [parse(name) for name in (*PLAIN, *FULL)]:
        source = repro.script(cell)
        compile(source, cell.id, "exec")
        assert "truestep" not in source
        assert max(map(len, source.splitlines()[1:])) <= 120, cell.id
        needs: dict[str, Any] = {
            "os.fork": cell.split.world_size > 1,
            "for step": cell.split.steps > 1,
            "factor": cell.knob("clipping") == "tight",
            "contextlib": cell.knob("accumulate") == "no_sync",
            "load_checkpoint": cell.knob("checkpoint") == "reload",
            "GatheredParameters": cell.knob("stage") == "3",
            "transformers": cell.model in ("llama", "qwen2"),
            "zero_optimization": cell.knob("stage") != "0",
        }
        assert {text: text in source for text in needs} == needs, cell.id


def test_a_cell_without_a_template_says_so() -> None:
    with pytest.raises(CellError, match=r"no standalone script for torch cells .*in half precision"):
        repro.script(parse("torch-mlp-W1-K2-dtype:bf16"))


def test_scripts_agree_with_the_verdicts(judged: Callable[..., dict[str, Any]]) -> None:
    names = [
        "deepspeed-mlp-W1-K4",
        "deepspeed-llama-W1-K2-stage:2-offload_optimizer:cpu",
        "deepspeed-mlp_tied-W2-K2x3u-stage:1-optimizer:adam",
        "deepspeed-mlp-W1-K2x3-stage:3-checkpoint:reload",
        "deepspeed-qwen2-W1-K3-objective:sequence_mean-batch:equal-clipping:tight-accumulate:boundary",
        "deepspeed-mlp-W1-K4-stage:2-dtype:bf16-returns:output",
        "deepspeed-llama-W2-K2x3-stage:2-dtype:bf16-optimizer:adam-checkpoint:reload",
        "deepspeed-mlp-W1-K1.8.2-stage:1",  # wrong in every release: set_train_batch_size moves the window
    ]
    verdicts = judged(names)
    for cell, wrong, said in repro.execute_many(map(parse, names)):
        verdict = verdicts[cell.id].verdict
        assert wrong == (verdict == "wrong"), (cell.id, verdict, said)
        assert "REFUSED" in said if verdict == "incompatible" else ("RIGHT with deepspeed" in said or "<- WRONG" in said)
    assert verdicts[names[-1]].verdict == "wrong"
