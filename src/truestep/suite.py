"""One run of cells: pools, verdicts, the advisories that explain them, and the results file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import versions_of
from truestep.fixtures.workers import Pool
from truestep.journal import Journal, Progress
from truestep.reports.known import explain
from truestep.reports.verdict import Verdict

PATCH_SETUP = "truestep.patches:patch"


class Suite:
    """Runs cells and keeps what they said.

    patch   : apply every patch that fits in each worker before its first cell, or those with these ids
    setup   : further ``module:function`` names to call there (seeded faults, in the tests)
    cores   : processes that may compute at once; python: the interpreter of the environment under test
    confirm : run red cells again in a fresh process
    detail  : diagnose red cells down to samples and tokens; weigh: the effective weights of right ones as well
    journal : keeps every verdict the moment it is known, and has those that an earlier run left
    progress: is told of every verdict, and while one is waited for
    """

    def __init__(
        self,
        *,
        patch: bool | tuple[str, ...] = False,
        setup: Iterable[str] = (),
        cores: int | None = None,
        confirm: bool = True,
        python: str | None = None,
        journal: Journal | None = None,
        progress: Progress | None = None,
        detail: bool = False,
        weigh: bool = False,
    ) -> None:
        self.patch, self.cores, self.confirm, self.python = patch, cores, confirm, python
        patches = [PATCH_SETUP] if patch is True else [f"{PATCH_SETUP}={','.join(patch)}"] if patch else []
        self.setup = (*patches, *setup)
        self.journal, self.progress, self.closed = journal, progress, False
        self.extra: dict[str, Any] = {name: True for name, asked in (("detail", detail), ("weigh", weigh)) if asked}
        self.told: dict[str, dict[str, str]] = {}  # cell id -> what a results line says of it besides (family, question)
        self.pools: dict[tuple[str, str], Pool] = {}
        self.futures: dict[Cell, Future[dict[str, Any]]] = {}

    def submit(self, cells: Iterable[Cell]) -> None:
        """Schedule what is not scheduled yet, grouped by framework and device."""
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            if cell not in self.futures and cell.id not in self._done:
                groups.setdefault((cell.framework, cell.device), []).append(cell)
        for (framework, device), some in groups.items():
            self.futures.update(self._pool(framework, device).submit(some, **self.extra))

    def verdict(self, cell: Cell) -> Verdict:
        """Wait for the verdict of one cell (scheduling it first if need be)."""
        if (row := self._done.get(cell.id)) is not None:
            return Verdict.from_json(_clean(dict(row)))
        if cell not in self.futures:
            self.submit([cell])
        return self._explained(cell, self._wait(cell))

    @property
    def _done(self) -> Mapping[str, Mapping[str, Any]]:
        return self.journal.done if self.journal is not None else {}

    def _wait(self, cell: Cell) -> dict[str, Any]:
        while True:
            try:
                return self.futures[cell].result(timeout=1.0)
            except NotYet:
                if self.futures[cell].done():  # the cell's own answer is that exception
                    raise
                if self.progress is not None:
                    self.progress.tick(cell.id)

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
        """Called by a pool's thread."""
        if self.closed and record["verdict"] == "skipped":
            return  # it did not run because the session ended; the next one may judge it
        if self.progress is not None:
            self.progress.count(record["verdict"])
        if self.journal is not None:
            verdict = self._explained(Cell.from_json(record["cell"]), record)
            self.journal.store.verdict({**self.told.get(verdict.id, {}), **verdict.to_json()})

    @property
    def leaks(self) -> list[str]:
        """Verdicts that cannot be trusted because the state of a worker had changed."""
        return [text for pool in self.pools.values() for text in pool.leaks]

    def close(self) -> None:
        self.closed = True
        for pool in self.pools.values():
            pool.close()

    def _pool(self, framework: str, device: str) -> Pool:
        key = (framework, device)
        if key not in self.pools:
            options: dict[str, Any] = {} if self.python is None else {"python": self.python}
            self.pools[key] = Pool(framework, device, cores=self.cores, setup=self.setup, confirm=self.confirm, **options)
            self.pools[key].on_record = self._write
        return self.pools[key]


def _clean(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k in Verdict.__dataclass_fields__}
