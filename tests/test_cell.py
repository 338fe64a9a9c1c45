"""Cells: ids that parse back, and one-line errors for everything that is not a cell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from truestep.fixtures.cell import BATCHES, MODELS, OBJECTIVES, Cell, CellError, parse
from truestep.fixtures.drivers import frameworks, knobs_of

cells = st.builds(
    lambda model, windows, ranks, uneven, objective, batch, seed, knobs: Cell.make(
        "deepspeed",
        model,
        windows=windows,
        world_size=ranks,
        uneven=uneven,
        objective=objective,
        batch=batch,
        seed=seed,
        **knobs,
    ),
    st.sampled_from(MODELS),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.sampled_from(OBJECTIVES),
    st.sampled_from(BATCHES),
    st.integers(0, 10**6),
    st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in knobs_of("deepspeed").items()}),
)


@given(cells)
def test_an_id_parses_back_to_its_cell(cell: Cell) -> None:
    assert parse(cell.id) == cell
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert hash(parse(cell.id)) == hash(cell)
    assert parse(cell.id).digest == cell.digest


@given(cells, cells)
def test_different_cells_have_different_ids(a: Cell, b: Cell) -> None:
    assert (a.id == b.id) == (a == b)


@given(cells)
def test_facts_name_every_knob(cell: Cell) -> None:
    facts = cell.facts()
    assert set(knobs_of("deepspeed")) <= set(facts)
    assert facts["K"] == max(cell.split.windows)


def test_defaults_are_left_out_of_the_id() -> None:
    assert Cell.make("deepspeed", stage=0, dtype="fp32").id == "deepspeed-mlp-W1-K1"
    cell = Cell.make("deepspeed", windows=4, offload_optimizer="cpu", stage=2)
    assert cell.id == "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu"
    assert cell.but(windows=2, stage=1).id == "deepspeed-mlp-W1-K2-stage:1-offload_optimizer:cpu"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a cell id"),
        ("deepspeed-mlp", "not a cell id"),
        ("deepspeed-mlp-W1-Kx", "not a cell id"),
        ("deepspeed-mlp-W1-K4-stage", "not knob:value"),
        ("deepspeed-mlp-W1-K4-stages:2", "unknown knob 'stages'"),
        ("deepspeed-mlp-W1-K4-stage:9", "use one of 0, 1, 2, 3"),
        ("deepspeed-gpt-W1-K4", "unknown model 'gpt'"),
        ("nothing-mlp-W1-K4", "unknown framework 'nothing'"),
        ("deepspeed-mlp-W0-K4", "impossible split"),
        ("deepspeed-mlp-W4-K8", "impossible split"),
    ],
)
def test_what_is_no_cell_gets_one_line(text: str, says: str) -> None:
    with pytest.raises(CellError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [[], "x", {}, {"framework": "deepspeed", "knob": 1}, {"framework": "deepspeed", "split": 3},
             {"framework": "deepspeed", "knobs": {"stage": "2", "zero": 1}}, {"framework": "deepspeed", "knobs": [1]}]
)  # fmt: skip
def test_json_that_is_no_cell_gets_one_line(data: object) -> None:
    with pytest.raises(CellError) as caught:
        Cell.from_json(data)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_collecting_needs_neither_torch_nor_a_framework() -> None:
    code = (
        "import sys, truestep, truestep.plugin, truestep.fixtures.cell, truestep.probes.test_offload, truestep.cli;"
        "import truestep.fixtures.workers, truestep.reports.terminal, truestep.patches;"
        "print(sorted({'torch', 'deepspeed', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_frameworks_are_named() -> None:
    assert "deepspeed" in frameworks()
