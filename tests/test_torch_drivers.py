"""The drivers torch (DDP, FSDP2) and accelerate: what their faults look like, what they stand on, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from truestep.fixtures.cell import Cell, parse
from truestep.fixtures.drivers import driver_of
from truestep.fixtures.faults import faults_of
from truestep.patches import advisories
from truestep.probes.pairs import random_cells
from truestep.reports import selftest

needs_accelerate = pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed: see README, tests")


@pytest.mark.parametrize(
    ("framework", "module"),
    [("torch", "truestep.fixtures.faults.parallel"), pytest.param("accelerate", "truestep.fixtures.faults.accelerate", marks=needs_accelerate)],
)
def test_every_seeded_fault_is_found_by_its_check_and_rightly_named(framework: str, module: str) -> None:
    found = selftest.run([framework], fault=module)
    assert {t.fault for t in found.trials} == {f.name for f in faults_of(module)} or found.skipped
    assert not found.alarms
    assert not [f"{t.fault} in {t.cell}: {t.verdict} {t.checks} {t.said}" for t in found.trials if not (t.found and t.named and t.only)]


@pytest.mark.parametrize("framework", ["torch", "accelerate"])
def test_random_cells_are_possible_and_parse_back(framework: str) -> None:
    cells = random_cells(framework, 60, 3)
    assert all(driver_of(framework).possible(c) and parse(c.id) == c for c in cells)


@pytest.mark.parametrize(
    ("cell", "offered"),
    [
        ("torch-mlp-W1-K2-sync:every", False),  # nothing to synchronise
        ("torch-mlp-W1-K2-dtype:bf16-parallel:ddp", False),  # DDP accumulates in the dtype of the model
        ("torch-mlp-W1-K2-dtype:bf16-grad_accum_dtype:half-parallel:ddp", True),
        ("torch-mlp-W2-K2-parallel:fsdp2-reshard:true", True),
        ("accelerate-mlp-W1-K3", False),  # sixteen samples are not three micro-batches of one size
        ("accelerate-mlp-W1-K3b2", True),
        ("accelerate-mlp-W1-K2-stage:2", False),  # a stage without DeepSpeed
        ("accelerate-mlp-W1-K2-engine:deepspeed-stage:2-via:no_sync", False),
        ("accelerate-mlp-W2-K2-dispatch_batches:true", False),  # unequal lengths cannot be put together
        ("accelerate-mlp-W2-K2-batch:padded-dispatch_batches:true", True),
    ],
)
def test_what_is_offered(cell: str, offered: bool) -> None:
    assert driver_of(parse(cell).framework).possible(parse(cell)) == offered


def test_deepspeed_is_below_accelerate_only_where_it_is_the_engine() -> None:
    plain, engine = Cell.make("accelerate"), Cell.make("accelerate", engine="deepspeed", stage=1)
    assert plain.facts()["packages"] == ("accelerate",)
    assert engine.facts()["packages"] == ("accelerate", "deepspeed")
    assert "contiguous_gradients" not in plain.facts() and engine.facts()["contiguous_gradients"] == "unset"


def test_advisories_of_accelerate_name_cells_that_they_predict() -> None:
    some = advisories("accelerate")
    assert len(some) >= 10
    for advisory in some:
        facts = parse(advisory.cell).facts()
        version = advisory.affected[0][0]
        assert advisory.predicts({**facts, "clips_by_default": True}, version), advisory.id
        assert advisory.links and advisory.measured
        for measured in advisory.measured:
            assert parse(measured.split(" [")[0]).id == measured.split(" [")[0]


@needs_accelerate
def test_both_take_the_right_step(judged: Callable[..., dict[str, Any]]) -> None:
    cells = [
        "torch-mlp_tied-W2-K2x2-optimizer:adam-clipping:tight-parallel:fsdp2_offload",
        "torch-mlp-W2-K2x2-clipping:tight-checkpoint:reload-parallel:ddp",
        "accelerate-mlp-W2-K4.4.2b1-clipping:tight",
        "accelerate-mlp-W1-K2x2-engine:deepspeed-stage:3-checkpoint:reload",
    ]
    assert {name: v.verdict for name, v in judged(cells).items()} == dict.fromkeys(cells, "pass")
