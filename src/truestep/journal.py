"""A results file during one run: what it takes over, what it writes, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from truestep.reports.results import Row, resumable, taken_over
from truestep.reports.snapshot import snapshot
from truestep.reports.store import Store


class Journal:
    """What one run writes to its results file.

    options : what was asked for: patch and setup (with others of either nothing is taken over), and the selection
    resume  : go on where the last run of this file stopped, if nothing has changed since
    run     : given to a worker of pytest-xdist: the run of its controller, who writes the first and the last record; resumes: what that took over
    """

    def __init__(
        self, path: Path, options: Mapping[str, Any], *, resume: bool = False, run: str = "", resumes: str = "", name: str = ""
    ) -> None:
        self.path, self.options, self.resume, self.name = path, options, resume, name or path.name.removesuffix(".jsonl")
        self.store = Store(path, run)
        self.follows = bool(run)
        self.resumes = resumes
        self.done: Mapping[str, Row] = taken_over(path, resumes) if resumes else {}
        self.said = ""  # one line for people about what was or was not taken over

    def begin(self, cells: int = 0) -> None:
        """cells : to be judged, 0 where that is not known yet."""
        environment = snapshot()
        self.resumes, self.done, self.said = resumable(self.path, self.name, environment, self.options)
        if not self.resume:
            if self.done:
                self.said = f"{self.path.name} holds a run that did not come to its end; --truestep-resume goes on with it"
            self.resumes, self.done = "", {}
        self.store.begin(self.name, environment, self.options, cells, self.resumes)

    def end(self, complete: bool, cells: int = 0) -> str:
        """Returns one line for people when not all could be written."""
        if not self.follows:
            self.store.end(complete, cells)
        return self.store.close()


class Progress:
    """A line now and then: which environment, how far, what was found, how long still, and what is waited for.

    total : cells to be judged (those taken over not counted), 0 where it is not known; say : prints a line; every : seconds between two of them
    """

    def __init__(self, name: str, total: int, say: Callable[[str], None], every: float = 30.0) -> None:
        self.name, self.total, self.say, self.every = name, total, say, every
        self.started = self.last = time.monotonic()
        self.judged = self.wrong = 0

    def count(self, verdict: str) -> None:
        self.judged += 1
        self.wrong += verdict in ("wrong", "error", "timeout")

    def tick(self, waiting: str = "") -> None:
        now = time.monotonic()
        if self.every <= 0 or now - self.last < self.every:
            return
        self.last = now
        share = f" of {self.total} cells ({self.judged / self.total:.0%})" if self.total else " cells"
        left = ""
        if self.total and self.judged:
            left = f", about {_span((now - self.started) / self.judged * max(0, self.total - self.judged))} left"
        self.say(f"truestep {self.name}: {self.judged}{share}, {self.wrong} red{left}" + (f"; now {waiting}" if waiting else ""))


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
