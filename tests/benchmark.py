"""What a verdict costs beside the bare step: run by hand on a machine that does nothing else.

    python tests/benchmark.py [CELLS]

In one process, frozen the same way, each cell is run bare (build the model, initialize, the loop, destroy, nothing
observed) and then in full (the same, observed, judged against the oracle, the verdict as JSON), in turn.
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

    model = models.build(cell.model, cell.seed)
    optimizer = torch.optim.SGD(model.parameters(), **driver.SGD)
    largest = max(p.numel() for p in model.parameters())
    config = driver.config_of(cell, largest, cell.split.windows[0])
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)[0]
    for step, window in enumerate(cell.split.windows):
        batch = batches.make(cell.batch, cell.model, cell.seed, step)
        share = objectives.weights_of(cell.objective)(batch.mask)
        for rows in batches.deal(cell.split, step)[0]:
            part = batch.take(rows)
            loss = models.call(engine, part, (share[list(rows), : part.mask.shape[1]] * window).float(), torch.float32)
            engine.backward(loss)
            engine.step()
    engine.destroy()


def main(count: int) -> None:
    import logging

    from truestep.fixtures.cell import Cell
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
    kinds = [
        Cell.make("deepspeed", "mlp", windows=k, stage=stage, offload_optimizer=offload)
        for k in (1, 2, 4, 8) for stage in (0, 1, 2) for offload in ("none", "cpu") if stage or offload == "none"
    ]  # fmt: skip
    gc.collect()
    gc.freeze()
    times: list[tuple[float, float]] = []
    for i in range(count + len(kinds)):
        cell = kinds[i % len(kinds)].but(seed=i // len(kinds) % 3)
        t0 = time.perf_counter()
        bare(cell, deepspeed, driver)
        t1 = time.perf_counter()
        json.dumps(judge(cell, driver.run(cell), driver).to_json())
        times.append((t1 - t0, time.perf_counter() - t1))
    times = times[len(kinds) * 3 :] or times[len(kinds) :]  # warm
    print(f"deepspeed {driver.version()}, {len(times)} warm cells of {len(kinds)} configurations (mlp, W = 1)")
    print(f"bare {statistics.median(a for a, _ in times) * 1e3:.2f} ms, full {statistics.median(b for _, b in times) * 1e3:.2f} ms")
    print(f"ratio full / bare: median {statistics.median(b / a for a, b in times):.2f}")
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
