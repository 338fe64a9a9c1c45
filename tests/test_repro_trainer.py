"""Standalone scripts of the Trainer family: short, free of truestep, and of the verdict's opinion."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from truestep.fixtures.cell import Cell, CellError, parse
from truestep.probes.pairs import random_cells
from truestep.reports import repro

from truestep.suite import Suite

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

GREEN = "transformers-llama.lm-W1-K4-batch:prompted"
TRAINER = (
    GREEN,
    "transformers-llama.lm-W1-K2x2-batch:prompted-optimizer:adam-schedule:linear-checkpoint:reload",
    "transformers-bert.class-W1-K4",  # not divided by K: https://github.com/huggingface/transformers/issues/47688
    "transformers-bert.mlm-W1-K1",
    "transformers-mixtral.lm-W1-K4-objective:router",  # https://github.com/huggingface/transformers/issues/48690
    "transformers-llama.lm-W1-K4-evaluate:3",
    "transformers-bert.class-W2-K2",
)
TRL = (
    "trl-llama.lm-W1-K4-batch:prompted",
    "trl-llama.lm-W1-K4-objective:dpo_sigmoid",
    "trl-llama.lm-W1-K4-objective:orpo",  # a mean of means
    "trl-llama.lm-W1-K4x2-objective:dapo-generation:half",
    "trl-llama.lm-W2-K2-objective:grpo_kl",
    "trl-gpt2.lm-W1-K4-objective:rloo_fresh",  # positions count the padding before a prompt
    "trl-mixtral.lm-W1-K4-objective:router-batch:prompted",
    "trl-llama.lm-W1-K1-objective:gkd_skewed",
)
LLAMAFACTORY = (
    "llamafactory-llama.lm-W1-K4-batch:prompted",
    "llamafactory-llama.lm-W1-K4-objective:asft",  # a mean of means, times K
    "llamafactory-llama.lm-W1-K4-objective:dpo_ipo",  # trains with the sigmoid loss
    "llamafactory-llama.lm-W1-K4-objective:kto_ftx",
    "llamafactory-llama.lm-W1-K8-objective:last_turn_ended",
    "llamafactory-llama.lm-W1-K1x3-data:iterable",
    "llamafactory-llama.lm-W1-K4-packing:neat",
    "llamafactory-mistral.lm-W1-K4-packing:neat",  # sees beyond the sliding window
    "llamafactory-llama.lm-W2-K2-objective:smoothed",
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
    clean.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    return subprocess.run([sys.executable, "-I", "-c", _ALONE.replace("FAULT", fault), str(script)],
                          capture_output=True, text=True, timeout=300, check=False, env=clean, cwd=folder)  # fmt: skip


@pytest.fixture
def suite() -> Iterator[Suite]:
    suite = Suite()
    yield suite
    suite.close()


def test_a_script_alone_finds_a_right_step_right(tmp_path: Path) -> None:
    done = alone(GREEN, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "effective weights of the micro-batches: [1.0, 1.0, 1.0, 1.0]  expected: [1.0, 1.0, 1.0, 1.0]" in done.stdout
    assert "RIGHT with transformers" in done.stdout


def test_a_script_alone_sees_a_fault(tmp_path: Path) -> None:
    fault = ("import transformers\nright = transformers.Trainer.compute_loss\n"
             "transformers.Trainer.compute_loss = lambda *a, **k: 1.001 * right(*a, **k)")  # fmt: skip
    done = alone(GREEN, tmp_path, fault)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "step 1: gradient is off by 0.001 (relative to the whole batch's gradient)  <- WRONG" in done.stdout
    assert "WRONG with transformers" in done.stdout


def test_what_the_framework_raises_is_printed_and_code_2(tmp_path: Path) -> None:
    fault = ("import transformers\ndef refuse(*a, **k): raise ValueError('not like this')\n"
             "transformers.Trainer.compute_loss = refuse")  # fmt: skip
    done = alone(GREEN, tmp_path, fault)
    assert done.returncode == 2
    assert "REFUSED by transformers <class 'ValueError'> not like this" in done.stdout


def test_scripts_are_short_and_hold_only_what_the_cell_needs() -> None:
    cells = [parse(name) for name in TRAINER] + random_cells("transformers", 100, seed=11)
    lengths = {}
    for cell in cells:
        source = repro.script(cell)
        compile(source, cell.id, "exec")
        assert "truestep" not in source
        lines = source.splitlines()
        assert max(map(len, lines[1:])) <= 125, cell.id
        lengths[cell.id] = len(lines)
        needs = {
            "os.fork": cell.split.world_size > 1,
            "for step, ": cell.split.steps > 1,
            "factor = ": cell.knob("clipping") in ("tight", "unset"),
            "trainer.evaluate(": cell.knob("evaluate") != "none",
            "resume_from_checkpoint": cell.knob("checkpoint") == "reload",
            "import deepspeed": cell.knob("engine") == "deepspeed",
            "GatheredParameters": cell.knob("stage") == "3",
            "label_smoothing": cell.objective == "smoothed",
        }
        assert {text: text in source for text in needs} == needs, cell.id
    assert {cell.id: lengths[cell.id] for cell in cells[: len(TRAINER)] if lengths[cell.id] > 80} == {}
    assert max(lengths.values()) <= 100


@pytest.mark.parametrize("cell", ["trl-llama.lm-W1-K4-objective:online_dpo", "trl-llama.lm+lora-W1-K4",
                                  "llamafactory-llama.lm+lora-W1-K4", "llamafactory-mixtral.lm-W1-K4-objective:router"])  # fmt: skip
def test_a_cell_that_no_template_can_express_says_so(cell: str) -> None:
    pytest.importorskip("trl")
    with pytest.raises(CellError, match="no standalone script"):
        repro.script(parse(cell))


def test_scripts_of_llamafactory_are_written_without_it() -> None:
    """Whatever is installed; those under DeepSpeed are longer, for what is consumed is in the optimizer's state there."""
    from truestep.reports.repro_llamafactory import OBJECTIVES

    each = [Cell.make("llamafactory", "llama.lm", windows=1, objective=name) for name in OBJECTIVES]
    cells = [*map(parse, LLAMAFACTORY), *each, *random_cells("llamafactory", 100, seed=11)]
    expressed = 0
    for cell in cells:
        try:
            source = repro.script(cell)
        except CellError:
            assert cell.objective in ("router", "reward") or "+" in cell.model, cell.id
            continue
        compile(source, cell.id, "exec")
        assert "truestep" not in source
        lines, under = source.splitlines(), cell.knob("engine") == "deepspeed"
        assert max(map(len, lines[1:])) <= 120, cell.id
        assert len(lines) <= (140 if under else 120), cell.id
        needs = {
            "os.fork": cell.split.world_size > 1,
            "import deepspeed": under,
            "GatheredParameters": under and cell.knob("stage") == "3",
            "deepspeed.initialize = watched": under,
            '"streaming": True': cell.knob("data") != "map",
            "min(1.0, ": cell.knob("clipping") != "off",
        }
        assert {text: text in source for text in needs} == needs, cell.id
        expressed += 1
    assert expressed > len(LLAMAFACTORY) + len(each) + 50


@pytest.mark.parametrize("names", [TRAINER, TRL, LLAMAFACTORY], ids=["transformers", "trl", "llamafactory"])
def test_scripts_agree_with_the_verdicts(suite: Suite, names: tuple[str, ...]) -> None:
    pytest.importorskip(names[0].partition("-")[0])
    cells = [parse(name) for name in names]
    suite.submit(cells)
    expressed = []
    for cell in cells:
        try:
            repro.script(cell)
            expressed.append(cell)
        except CellError:  # older releases lack some
            continue
    verdicts = {cell.id: suite.verdict(cell) for cell in expressed}
    for cell, wrong, said in repro.execute_many(expressed):
        verdict = verdicts[cell.id].verdict
        if verdict == "pass":
            assert not wrong and "RIGHT with" in said, (cell.id, said)
        if verdict == "wrong":
            assert wrong, (cell.id, said)
