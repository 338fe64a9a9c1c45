"""The cure of one bug: small functions put around the original ones, never copies of them."""

from __future__ import annotations

import functools
import sys
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
    current = vars(owner)[name]
    if not callable(current):
        raise TypeError(f"{module.__name__}.{target} is not a plain function")
    # Several patches may wrap one function and be taken back in any order: they share one seam.
    seam: _Seam = getattr(current, _SEAM, None) or _Seam(owner, name, current)
    seam.arounds.append(around)
    return lambda: seam.remove(around)


_SEAM = "__truestep_seam__"


class _Seam:
    """One wrapper in place of a function, and what goes around it: the first one innermost."""

    def __init__(self, owner: Any, name: str, original: Callable[..., Any]) -> None:
        self.arounds: list[Around] = []
        self._owner, self._name, self._original = owner, name, original

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = original
            for around in self.arounds:
                call = functools.partial(around, call)
            return call(*args, **kwargs)

        setattr(wrapper, _SEAM, self)
        self._wrapper = wrapper
        self._exchange(original, wrapper)

    def remove(self, around: Around) -> None:
        self.arounds.remove(around)
        # Somebody may have wrapped our wrapper or kept it: then it stays where it is, without effect.
        if not self.arounds:
            self._exchange(self._wrapper, self._original)

    def _exchange(self, old: Callable[..., Any], new: Callable[..., Any]) -> None:
        """Where it is, and, for a function of a module, in every module that took it with ``from ... import``."""
        takers = [one for one in list(sys.modules.values()) if isinstance(one, ModuleType)]
        for holder in [self._owner, *(takers if isinstance(self._owner, ModuleType) else ())]:
            if vars(holder).get(self._name) is old:
                setattr(holder, self._name, new)
