"""Standalone scripts of OpenRLHF's command lines: short, free of truestep, and of the verdict's opinion, figure included."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from truestep.fixtures.cell import CellError, parse
from truestep.probes.pairs import random_cells
from truestep.reports import repro
from truestep.reports.repro_openrlhf import OBJECTIVES

SFT = "openrlhf-llama.lm-{}-objective:response_mean-batch:prompted"
DPO = "openrlhf-llama.lm-{}-objective:dpo_sigmoid"
REWARD = "openrlhf-llama.value-{}-objective:{}"
CELLS = (
    SFT.format("W1-K4"),
    SFT.format("W2-K4x3b2e2") + "-stage:3-loss:logged",
    "openrlhf-llama.lm-W1-K2-objective:whole_mean-clipping:unset",
    DPO.format("W1-K4"),
    DPO.format("W2-K4") + "-stage:1-loss:logged",
    "openrlhf-llama.lm-W1-K8-objective:dpo_ipo_sum-offload_optimizer:cpu",
    "openrlhf-llama.lm-W1-K2-objective:dpo_smoothed-stage:0",
    "openrlhf-llama.lm-W2-K2x3-objective:dpo_ftx-clipping:tight",
    REWARD.format("W1-K1", "reward") + "-pairwise:logexp",
    REWARD.format("W2-K2", "reward_margin") + "-stage:3",
)


@pytest.fixture
def needs_openrlhf(needs_deepspeed: None) -> None:
    if find_spec("openrlhf") is None:
        pytest.skip("openrlhf is not installed: .ci/environment says how")


def test_scripts_are_short_and_hold_only_what_the_cell_needs(needs_openrlhf: None) -> None:
    cells = [*map(parse, CELLS), *random_cells("openrlhf", 100, seed=11)]
    expressed = 0
    for cell in cells:
        try:
            source = repro.script(cell)
        except CellError:  # no script yet, or an option that this release does not have
            continue
        expressed += 1
        compile(source, cell.id, "exec")
        assert cell.objective in OBJECTIVES
        assert "truestep" not in source
        lines = source.splitlines()
        assert max(map(len, lines[1:])) <= 128, cell.id
        assert len(lines) <= 195, cell.id
        pairs = cell.objective.startswith(("dpo", "reward"))
        needs = {
            "os.fork": cell.split.world_size > 1,
            "reference.save_pretrained": cell.objective.startswith("dpo"),
            "head.copy_(net.score.weight)": cell.task == "value",
            "logsigmoid(": pairs and cell.objective != "dpo_ipo_sum",
            "Trainer.save_logs_and_checkpoints = logging": cell.knob("loss") == "logged",
            "with deepspeed.zero.GatheredParameters([p])": cell.knob("stage") == "3",
            "adam_offload": cell.knob("offload_optimizer") == "cpu",
            "min(1.0, ": cell.knob("clipping") != "off",
        }
        assert {text: text in source for text in needs} == needs, cell.id
    assert expressed >= len(CELLS)


def test_scripts_agree_with_the_verdicts_to_two_digits(needs_openrlhf: None, judged: Callable[..., dict[str, Any]]) -> None:
    names = [
        DPO.format("W2-K4") + "-loss:logged",  # truestep-2026-73-dpo
        REWARD.format("W1-K4", "reward_margin") + "-pairwise:logexp",  # truestep-2026-76
        REWARD.format("W1-K2", "reward"),
    ]
    verdicts = judged(names)
    assert [verdicts[name].verdict for name in names] == ["wrong", "wrong", "pass"]
    for cell, wrong, said in repro.execute_many(map(parse, names)):
        verdict = verdicts[cell.id]
        assert wrong == (verdict.verdict == "wrong"), (cell.id, said)
        red = next((check for check in verdict.checks if check.red), None)
        if red is None:
            assert "RIGHT with openrlhf" in said
            continue
        found = re.search(r"the (gradient|loss)\b.* is off by (\S+)", said)
        assert found and found[1] == red.name
        assert float(found[2]) == pytest.approx(red.figure, rel=0.01)


def test_what_is_computed_in_half_precision_has_no_script(needs_openrlhf: None) -> None:
    with pytest.raises(CellError, match="in half precision"):
        repro.script(parse(DPO.format("W1-K4") + "-dtype:bf16"))
