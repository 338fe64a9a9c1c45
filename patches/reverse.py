"""Reverse patches: a bug of an old release put back into one that has its fix.

A probe that found the bug then is seen to find it still, whatever release is installed. What is put back is
the old behaviour, by small functions around the new ones, never the old code. The guard is the one of a patch:
a source that it was not verified on is refused, for there the wrappers may do nothing, or something else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from truestep.fixtures.faults import around

from .fingerprint import fingerprint_at
from .patch import Around


class Moved(RuntimeError):
    """The source is not one that the reverse patch was verified on: one line that says what to do."""


@functools.cache  # a file that was imported is not read again either
def _digest(root: Path, module: str, names: tuple[str, ...]) -> str:
    return fingerprint_at(root, module, names)


@dataclass(frozen=True)
class Reverse:
    """What is wrapped, and on which sources that made the historical cells as wrong as they were.

    module    : where names belong that do not say so themselves, as ``module:Class.method`` does
    around    : what is wrapped, and what is called in its place as ``replacement(original, ...)``
    relies_on : every other function on whose behaviour the replacements depend
    verified  : digest of the source of all these -> the releases that have it
    """

    module: str
    around: Mapping[str, Around]
    relies_on: tuple[str, ...]
    verified: Mapping[str, str]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """The bug is in force inside; raises Moved before anything is touched."""
        self.guard()
        with ExitStack() as stack:
            for name, replacement in self.around.items():
                stack.enter_context(around(*self._place(name), replacement))
            yield

    def guard(self) -> None:
        """Raise Moved where the installed source is not one of ``verified``."""
        digest = self.digest(Path(import_module(self.module).__file__ or "").parents[self.module.count(".")])
        if digest not in self.verified:
            framework = self.module.partition(".")[0]
            raise Moved(
                f"the source of {next(iter(self.around))} or of what it works with has moved in {framework}"
                f" {import_module(framework).__version__}: re-verify the reverse patch and add the digest {digest}"
            )

    def digest(self, root: Path) -> str:
        """The fingerprint of all its functions in the package that lies in ``root``."""
        return _digest(root, self.module, (*self.around, *self.relies_on))

    def _place(self, name: str) -> tuple[Any, str]:
        module, _, inner = name.rpartition(":")
        *path, last = inner.split(".")
        owner: Any = import_module(module or self.module)
        for part in path:
            owner = getattr(owner, part)
        return owner, last
