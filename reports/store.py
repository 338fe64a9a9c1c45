"""The results file: JSON lines that are appended, by several processes at once if need be, and never rewritten.

A run writes a ``run`` record, one ``verdict`` record for each cell the moment it is known, and an ``end`` record
(docs/schema.md). Every record is one write under a lock. A line that cannot be written (a full disk) is taken back
whole, kept, and tried again with the next one; what still cannot be written at the end goes to another folder.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

SCHEMA = "truestep-results-2"

try:
    import fcntl
except ImportError:  # not on Windows, where appends of two runs at once may mix
    fcntl = None  # type: ignore[assignment]


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Appends the records of one run to a file.

    run : its identifier; a worker of pytest-xdist is given the one of its controller
    """

    def __init__(self, path: Path, run: str = "") -> None:
        self.path, self.run = path, run or secrets.token_hex(6)
        self.pending: list[str] = []
        self.trouble = ""  # why lines are pending, "" when none is
        self._lock = threading.Lock()

    def begin(self, name: str, environment: Mapping[str, Any], options: Mapping[str, Any], cells: int, resumes: str = "") -> None:
        """What follows was judged in that environment; resumes: the run whose verdicts are taken over."""
        self._add({
            "record": "run", "name": name, "started": now(), "pid": os.getpid(), "host": socket.gethostname(),
            "environment": environment, "options": options, "cells": cells, "resumes": resumes,
        })  # fmt: skip

    def verdict(self, row: Mapping[str, Any]) -> None:
        self._add({"record": "verdict", **row})

    def end(self, complete: bool, cells: int = 0) -> None:
        """complete: every cell was judged, else the run can be resumed; cells: how many there were, where ``begin`` could not know it."""
        self._add({"record": "end", "finished": now(), "complete": complete, "cells": cells})

    def close(self) -> str:
        """Write what is pending, elsewhere if need be; returns one line for people when not all is in the file."""
        with self._lock:
            self._flush()
            if not self.pending:
                return ""
            count = len(self.pending)
            for folder in (Path.cwd(), Path.home(), Path(tempfile.gettempdir())):
                spare = folder / f"{self.path.stem}-{self.run}.rest.jsonl"
                with suppress(OSError):
                    _append(spare, self.pending)
                    self.pending.clear()
                    return (f"{count} of the verdicts could not be written to {self.path} ({self.trouble}); they are in {spare}: "
                            f"make room, then append that file to it")  # fmt: skip
            return f"{count} of the verdicts could not be written to {self.path} ({self.trouble}); they are in this summary only"

    def _add(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({"schema": SCHEMA, "run": self.run, **record}) + "\n"
        with self._lock:
            self.pending.append(line)
            self._flush()

    def _flush(self) -> None:
        while self.pending:
            try:
                _append(self.path, self.pending[:1])
            except OSError as error:
                if not self.trouble:
                    print(f"truestep: {self.path}: {error.strerror or error}; verdicts are kept and tried again", file=sys.stderr)
                self.trouble = error.strerror or str(error)
                return
            del self.pending[0]


def _append(path: Path, lines: list[str]) -> None:
    """All of it or nothing; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        size = file.seek(0, os.SEEK_END)
        data = "".join(lines).encode()
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # another run died within a line
                data = b"\n" + data
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
