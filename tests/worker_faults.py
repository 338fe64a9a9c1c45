"""Faults of a worker rather than of a framework: called in a worker before its first cell."""

from __future__ import annotations

import os
import time
from typing import Any

from truestep.fixtures.drivers import deepspeed


def _before(act: Any) -> None:
    original = deepspeed.run

    def run(cell: Any) -> Any:
        act(cell)
        return original(cell)

    deepspeed.run = run


def sleep_in_one_cell() -> None:
    def act(cell: Any) -> None:
        if cell.seed == 1 and cell.knob("stage") == "1" and cell.split.windows == (2,):
            time.sleep(10_000)

    _before(act)


def rank_one_dies_in_one_cell() -> None:
    def act(cell: Any) -> None:
        if cell.seed == 2 and cell.split.windows == (1,) and os.environ["RANK"] == "1":
            os._exit(9)

    _before(act)


def leak_state_after_some_cells() -> None:
    """From the fifth cell on every gradient of this process is a little off, as after a leaked hook."""
    seen: list[Any] = []
    leaked: list[Any] = []

    def act(cell: Any) -> None:
        seen.append(cell)
        if len(seen) == 5:
            from truestep.fixtures.faults.deepspeed import everything_is_one_percent_off

            leaked.append(everything_is_one_percent_off())
            leaked[-1].__enter__()

    _before(act)
