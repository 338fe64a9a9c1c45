"""The DeepSpeed driver: what it observes, it does not change."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import logging, os, sys, tempfile
from pathlib import Path
os.environ["OMP_NUM_THREADS"] = "1"
import torch
from truestep.fixtures.cell import parse
from truestep.fixtures.drivers import Place, driver_of
driver = driver_of("deepspeed")
driver.load()
logging.disable(logging.CRITICAL)
folder = Path(tempfile.mkdtemp())
place = Place(0, 1, "cpu", folder / "store", folder)
driver.start(place)
for name in sys.argv[1:]:
    cell = parse(name)
    observed = driver.run(cell)[-1].weights_after
    session = driver._Session(cell, place)
    for step in range(cell.split.steps):
        session._train(step)  # the same loop, nothing read in between
    plain = session.watch.weights(session.watch.names)
    session.close()
    print("RESULT", name, all(torch.equal(plain[n], observed[n]) for n in plain))
"""
CELLS = [
    "deepspeed-mlp-W1-K4x3",
    "deepspeed-mlp-W1-K2x3-stage:1-offload_optimizer:cpu",
    "deepspeed-mlp-W1-K2x3-stage:2-optimizer:adam",
    "deepspeed-mlp-W1-K2x3-stage:1-dtype:bf16-grad_accum_dtype:fp32",
    "deepspeed-mlp-W1-K2x3-stage:3",
    "deepspeed-mlp_tied-W1-K2x3-stage:3-offload_optimizer:cpu-offload_param:cpu",
]


@pytest.mark.usefixtures("needs_deepspeed")
def test_observing_a_run_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *CELLS], capture_output=True, text=True, timeout=300, check=False
    )
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert told == [[name, "True"] for name in CELLS], done.stderr[-2000:]
