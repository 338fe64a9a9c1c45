"""What a diagnosis costs on the tiny Llama cell: run by hand on a machine that does nothing else.

    python tests/benchmark_diagnosis.py [REPEATS]

The gradients of all units and the least squares on them, in one process and one thread, float64: medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"


def main(repeats: int) -> None:
    import torch
    from truestep.fixtures import models
    from truestep.fixtures.cell import parse
    from truestep.reports import effective

    torch.set_num_threads(1)
    for text in ("torch-llama-W1-K4", "torch-mlp-W1-K4"):
        cell = parse(text)
        weights = models.initial(cell.model, cell.seed, torch.float32)
        for unit in effective.UNITS:
            times = []
            for _ in range(repeats + 2):
                began = time.perf_counter()
                columns = effective.columns(cell, 0, weights, torch.float64, unit)
                fit = effective.fit(columns.values.sum(0), columns.values)
                times.append(time.perf_counter() - began)
            assert fit is not None
            count = len(columns.places)
            print(
                f"{text}: {count:>2} weights, one per {unit:<12} {statistics.median(times[2:]) * 1e3:6.1f} ms, condition {fit.condition:.3g}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
