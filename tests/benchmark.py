"""What a verdict costs beside the bare step: run by hand on a machine that does nothing else.

    python tests/benchmark.py [CELLS]

In one process, frozen the same way, cells of the default grid are taken in its order, each run bare (build the model,
initialize, the loop, destroy, nothing observed) and then in full (the same, observed, judged against the oracle, the
verdict as JSON), in turn. No cell is run twice, so oracle and noise are computed afresh wherever the grid needs them
afresh. Taken are the cells that a plain loop can run: float32, one rank, SGD, managed accumulation, an MLP.
Prints the median of each and of their ratio.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


def bare(cell: Any, deepspeed: Any, driver: Any) -> None:
    """The same engine and steps, as a plain loop."""
    import torch
    from truestep.fixtures import batches, models, objectives

    model = models.build(cell.model, cell.seed, cell.knob("returns"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **driver.SGD)
    largest = max(p.numel() for p in model.parameters())
    config = driver.config_of(cell, largest, cell.split.windows[0])
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)[0]
    for step, window in enumerate(cell.split.windows):
        batch = batches.make(cell.batch, cell.model, cell.seed, step)
        share = objectives.weights_of(cell.objective)(batch.mask)
        for rows in batches.deal(cell.split, step)[0]:
            part = batch.take(rows)
            weights = (share[list(rows), : part.mask.shape[1]] * window).float()
            loss = models.call(engine, part, weights, torch.float32, cell.knob("returns"))
            engine.backward(loss)
            engine.step()
    engine.destroy()


def main(count: int) -> None:
    import logging

    from truestep.fixtures.drivers import Place, driver_of
    from truestep.reports.judge import judge

    driver = driver_of("deepspeed")
    driver.load()
    import deepspeed
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp())
    driver.start(Place(0, 1, "cpu", folder / "store", folder))
    cells = grid_cells()
    for cell in [c for c in cells if c.knob("stage") != "3"][:20]:  # the first engines of a process are slower
        bare(cell, deepspeed, driver)
    gc.collect()
    gc.freeze()
    times: list[tuple[float, float]] = []
    for cell in cells[:count]:
        t0 = time.perf_counter()
        bare(cell, deepspeed, driver)
        t1 = time.perf_counter()
        json.dumps(judge(cell, driver.run(cell), driver).to_json())
        times.append((t1 - t0, time.perf_counter() - t1))
    print(f"deepspeed {driver.version()}, {len(times)} cells of the default grid")
    print(
        f"bare {statistics.median(a for a, _ in times) * 1e3:.2f} ms, full {statistics.median(b for _, b in times) * 1e3:.2f} ms"
    )
    print(f"ratio full / bare: median {statistics.median(b / a for a, b in times):.2f}")
    os._exit(0)


def grid_cells() -> list[Any]:
    """The cells of the default grid that a plain loop can run; stage 3 apart, as in the workers."""
    from importlib import import_module

    import truestep.probes

    plain = {
        "dtype": "fp32",
        "optimizer": "sgd",
        "accumulate": "managed",
        "backward": "engine",
        "checkpoint": "none",
        "read": "none",
    }
    cells: dict[Any, None] = {}
    for path in sorted(Path(truestep.probes.__file__).parent.glob("test_*.py")):
        for value in vars(import_module(f"truestep.probes.{path.stem}")).values():
            for mark in getattr(value, "pytestmark", ()):
                if mark.name == "parametrize":
                    cells.update((p.values[0], None) for p in mark.args[1])
    return [
        c for c in cells
        if all(c.knob(k) == v for k, v in plain.items()) and c.split.world_size == 1 and c.model.startswith("mlp")
        and c.device == "cpu" and len(set(c.split.windows)) == 1 and c.knob("stage") != "3"
    ]  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
