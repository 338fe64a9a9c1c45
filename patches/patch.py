"""The cure of one bug: small functions put around the original ones, never copies of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .advisory import Advisory

Around = Callable[..., Any]
"""Called as ``around(original, *args, **kwargs)`` in place of ``original(*args, **kwargs)``."""

Undo = Callable[[], None]


@dataclass(frozen=True)
class Patch:
    """What is wrapped in which module, and on which source that was verified."""

    advisory: Advisory
    module: str
    around: Mapping[str, Around]
    """Dotted name inside the module (``Class.method`` or ``function``) -> what goes around it."""
    relies_on: tuple[str, ...]
    """Every function of the module whose behaviour the cure depends on, the wrapped ones included."""
    fingerprints: Mapping[str, str]
    """Digest of the source of ``relies_on`` -> the releases that have it and on which the cure was run."""

    @property
    def id(self) -> str:
        return self.advisory.id

    @property
    def framework(self) -> str:
        return self.advisory.framework

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.around)

    def wrap(self, module: ModuleType) -> Undo:
        """Wrap every target; all of them or, if one cannot be, none."""
        undos: list[Undo] = []
        try:
            for target, around in self.around.items():
                undos.append(_intercept(module, target, around))
        except (AttributeError, KeyError, TypeError):
            _run_all(reversed(undos))
            raise
        return lambda: _run_all(reversed(undos))


def _run_all(undos: Iterable[Undo]) -> None:
    for undo in undos:
        undo()


def _intercept(module: ModuleType, target: str, around: Around) -> Undo:
    *path, name = target.split(".")
    owner: Any = module
    for part in path:
        owner = vars(owner)[part]
    original = vars(owner)[name]
    if not callable(original):
        raise TypeError(f"{module.__name__}.{target} is not a plain function")
    live = True

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs) if live else original(*args, **kwargs)

    setattr(owner, name, wrapper)

    def undo() -> None:
        nonlocal live
        # Somebody may have wrapped our wrapper or kept a bound method: then we stay in the chain, without effect.
        live = False
        if vars(owner).get(name) is wrapper:
            setattr(owner, name, original)

    return undo
