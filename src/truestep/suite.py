"""One run of cells: pools, verdicts, the advisories that explain them, and the results file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import versions_of
from truestep.fixtures.workers import Pool
from truestep.reports.known import explain
from truestep.reports.verdict import Verdict

SCHEMA = "truestep-results-1"
PATCH_SETUP = "truestep.patches:patch"


class Suite:
    """Runs cells and keeps what they said.

    patch   : apply every patch that fits in each worker before its first cell, or those with these ids
    setup   : further ``module:function`` names to call there (seeded faults, in the tests)
    cores   : processes that may compute at once; python: the interpreter of the environment under test
    confirm : run red cells again in a fresh process
    detail  : diagnose red cells down to samples and tokens; weigh: the effective weights of right ones as well
    results : a file to which every verdict is appended as a JSON line the moment it is known
    """

    def __init__(
        self,
        *,
        patch: bool | tuple[str, ...] = False,
        setup: Iterable[str] = (),
        cores: int | None = None,
        confirm: bool = True,
        python: str | None = None,
        results: Path | None = None,
        detail: bool = False,
        weigh: bool = False,
    ) -> None:
        self.patch, self.cores, self.confirm, self.python = patch, cores, confirm, python
        patches = [PATCH_SETUP] if patch is True else [f"{PATCH_SETUP}={','.join(patch)}"] if patch else []
        self.setup = (*patches, *setup)
        self.results = results
        self.extra: dict[str, Any] = {name: True for name, asked in (("detail", detail), ("weigh", weigh)) if asked}
        self.told: dict[str, dict[str, str]] = {}  # cell id -> what a results line says of it besides (family, question)
        self.pools: dict[tuple[str, str], Pool] = {}
        self.futures: dict[Cell, Future[dict[str, Any]]] = {}

    def submit(self, cells: Iterable[Cell]) -> None:
        """Schedule what is not scheduled yet, grouped by framework and device."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            if cell not in self.futures:
                groups.setdefault((cell.framework, cell.device), []).append(cell)
        for (framework, device), some in groups.items():
            self.futures.update(self._pool(framework, device).submit(some, **self.extra))

    def verdict(self, cell: Cell) -> Verdict:
        """Wait for the verdict of one cell (scheduling it first if need be)."""
        if cell not in self.futures:
            self.submit([cell])
        return self._explained(cell, self.futures[cell].result())

    def detailed(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same rows; those that stand for a finding are run once more and diagnosed down to samples and tokens."""
        from truestep.reports.terminal import representatives

        cells = {Cell.from_json(row["cell"]): row for row in representatives(rows) if row["verdict"] == "wrong"}
        futures = {c: self._pool(c.framework, c.device).submit([c], detail=True)[c] for c in cells if c.framework}
        finer = {}
        for cell, future in futures.items():
            record = future.result()
            if record["verdict"] == "wrong":
                finer[cell.id] = record["diagnosis"]
        return [{**row, "diagnosis": finer.get(row["id"], row["diagnosis"])} for row in rows]

    def _explained(self, cell: Cell, record: dict[str, Any]) -> Verdict:
        versions = record.get("versions") or versions_of(cell.framework)
        return explain(Verdict.from_json(_clean(record)), cell, versions)

    def _write(self, record: dict[str, Any]) -> None:
        """Called by a pool's thread: one line, one write, closed at once; a run that dies keeps what it has."""
        if self.results is not None:
            verdict = self._explained(Cell.from_json(record["cell"]), record)
            append(self.results, {**self.told.get(verdict.id, {}), **verdict.to_json()})

    @property
    def leaks(self) -> list[str]:
        """Verdicts that cannot be trusted because the state of a worker had changed."""
        return [text for pool in self.pools.values() for text in pool.leaks]

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()

    def _pool(self, framework: str, device: str) -> Pool:
        key = (framework, device)
        if key not in self.pools:
            options: dict[str, Any] = {} if self.python is None else {"python": self.python}
            self.pools[key] = Pool(framework, device, cores=self.cores, setup=self.setup, confirm=self.confirm, **options)
            self.pools[key].on_record = self._write
        return self.pools[key]


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one result to a results file; one write, closed at once: a run that dies keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"schema": SCHEMA, **row}) + "\n")


def _clean(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k in Verdict.__dataclass_fields__}
