"""What makes a pytest run a gate: markers to select by, a share of the cells, accepted findings, and the report of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truestep.fixtures.cell import Cell
    from truestep.reports.baseline import Accepted, Baseline, Expired

#: words of a configuration that ``pytest -m`` selects by, beside frameworks and families
WORDS = {
    "zero0": "of ZeRO stage 0", "zero1": "of ZeRO stage 1", "zero2": "of ZeRO stage 2", "zero3": "of ZeRO stage 3",
    "offload_cpu": "that offload optimizer or parameters", "several_ranks": "of more than one rank", "accumulation": "of more than one micro-batch in a step",
    "bf16": "in bfloat16", "fp16": "in float16", "cuda": "on a GPU", "adapter": "with a PEFT adapter",
}  # fmt: skip


def markers() -> dict[str, str]:
    """Every marker of truestep with what it means; standard library only, as pytest asks at every start."""
    from truestep.fixtures.drivers import BUILT_IN

    probes = Path(str(_folder("truestep.probes")))
    families = sorted(path.stem.removeprefix("test_") for path in probes.glob("test_*.py"))
    return {
        "truestep": "a probe, parametrised over cells of a framework",
        **{name: f"cells of the family {name} (truestep)" for name in families},
        **{name: f"cells of {name} (truestep)" for name in BUILT_IN},
        **{name: f"cells {text} (truestep)" for name, text in WORDS.items()},
    }


def _folder(package: str) -> str:
    from importlib.util import find_spec

    spec = find_spec(package)
    return next(iter(spec.submodule_search_locations or ()), "") if spec is not None else ""


def words(cell: Cell) -> list[str]:
    """The markers that fit a cell, of its framework and its configuration."""
    knobs = dict(cell.knobs)
    stage = knobs.get("stage", _default(cell.framework, "stage"))
    fits = {
        cell.framework: True,
        f"zero{stage}": stage.isdigit() and knobs.get("engine", _default(cell.framework, "engine")) != "none",
        "offload_cpu": "cpu" in (knobs.get("offload_optimizer"), knobs.get("offload_param")),
        "several_ranks": cell.split.world_size > 1,
        "accumulation": max(cell.split.windows) > 1,
        "cuda": cell.device == "cuda",
        "adapter": "+" in cell.model,
        knobs.get("dtype", "fp32"): knobs.get("dtype") in ("bf16", "fp16"),
    }
    return [word for word, fit in fits.items() if fit]


def _default(framework: str, knob: str) -> str:
    from truestep.fixtures.drivers import knobs_of

    return knobs_of(framework).get(knob, ("",))[0]


def shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4); raises ValueError with one line."""
    part, slash, of = text.partition("/")
    if not (slash and part.isdigit() and of.isdigit() and 1 <= int(part) <= int(of)):
        raise ValueError(f"--truestep-shard {text}: expected I/N with I from 1 to N, such as 2/4")
    return int(part), int(of)


def in_shard(cell: Cell, part: tuple[int, int]) -> bool:
    """By the digest of its content: the same cells on every machine, about as many in every part."""
    return int(cell.digest, 16) % part[1] == part[0] - 1


class Gate:
    """The accepted findings of one session.

    today : an entry holds up to its last day
    """

    def __init__(self, baseline: Baseline, today: date) -> None:
        self.baseline, self.today = baseline, today

    @classmethod
    def load(cls, path: Path) -> Gate:
        """Raises BaselineError or OSError."""
        from truestep.reports.baseline import load

        return cls(load(path), date.today())

    def judge(self, row: Mapping[str, Any]) -> Accepted | Expired | None:
        return self.baseline.judge(row, self.today)

    def complaints(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Entries that must not stay: over their date, or right by now in the cells that were judged."""
        told = [f"{e.bug} was accepted until {e.expires}, which is over ({e.reason}): cure it or give it another date" for e in self.baseline.expired(self.today)]
        for entry in self.baseline.stale(rows, self.today):
            more = f" and {len(entry.cells) - 1} more cells" if len(entry.cells) > 1 else ""
            told.append(f"{entry.bug} is accepted in {entry.cells[0]}{more}, right by now: remove that from {self.baseline.path}")
        return told


def write_report(folder: Path, rows: Sequence[Mapping[str, Any]], name: str, options: Mapping[str, Any], complete: bool, gate: Gate | None) -> None:
    """Everything that ``truestep report --all`` writes, of the rows of this session; raises OSError."""
    from truestep.outputs import write_all
    from truestep.reports.results import Environment, Results, Run
    from truestep.reports.snapshot import snapshot
    from truestep.reports.store import now

    run = Run(name, name, "", finished=now(), complete=complete, cells=len(rows), environment=snapshot(), options=options, rows=tuple(rows))
    write_all(Results((Environment(name, (run,)),)), folder, gate.baseline if gate is not None else None)
