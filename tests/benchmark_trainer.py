"""What a cell of transformers' Trainer costs, against the bare train() of the same model and rows.

    python tests/benchmark_trainer.py [count]

One process, one core, frameworks imported and frozen beforehand as in a worker; both in turns, medians. Run it on a
machine that does nothing else.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1")
CELLS = ("transformers-llama.lm-W1-K4", "transformers-bert.class-W1-K1", "transformers-llama.lm+lora-W1-K4", "trl-llama.lm-W1-K4")


def bare(cell: Any, folder: Path) -> None:
    """What a user's script does: a Trainer with its arguments, rows and collator, train()."""
    import transformers
    from truestep.fixtures.drivers import _trainer

    model, _ = _trainer.framework_model(cell, cell.seed)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**_trainer.arguments(cell, folder)),
        train_dataset=_trainer.rows(cell),
        data_collator=_trainer.Collator(cell),
        optimizers=(_trainer.optimizer_for(cell, [p for p in model.parameters() if p.requires_grad]), None),
    )
    trainer.train()


def main(count: int) -> None:
    import torch
    from truestep.fixtures.cell import parse
    from truestep.fixtures.drivers import Place, driver_of
    from truestep.reports.judge import judge

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    for name in ("transformers", "trl"):
        driver_of(name).load()
        driver_of(name).start(Place(0, 1, "cpu", folder / "store", folder))
    gc.collect()
    gc.freeze()
    print(f"{'cell':36} {'bare train()':>14} {'observed':>10} {'judged':>10} {'ratio':>7}   (ms, medians of {count})")
    for text in CELLS:
        cell = parse(text)
        driver = driver_of(cell.framework)
        plain, observed, judged = [], [], []
        for i in range(count + 3):
            began = time.perf_counter()
            bare(cell, folder)
            middle = time.perf_counter()
            traces = driver.run(cell)
            seen = time.perf_counter()
            judge(cell, traces, driver)
            end = time.perf_counter()
            if i >= 3:  # the first ones warm up
                plain.append(middle - began)
                observed.append(seen - middle)
                judged.append(end - middle)
        a, b, c = (1e3 * statistics.median(times) for times in (plain, observed, judged))
        print(f"{text:36} {a:14.1f} {b:10.1f} {c:10.1f} {c / a:7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
