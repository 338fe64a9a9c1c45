"""Which advisories and patches there are: those of this package, and those that others bring.

Another distribution declares an entry point in the group ``truestep.advisories``. It may name an
:class:`Advisory`, a :class:`Patch`, a module that has ``ADVISORY`` and perhaps ``PATCH``, or an iterable of
these. One that fails to load costs a line on stderr, not the run.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType

from .advisory import Advisory
from .patch import Patch

ENTRY_POINT_GROUP = "truestep.advisories"
_FRAMEWORKS = ("accelerate", "deepspeed", "llamafactory", "openrlhf", "peft", "transformers", "trl")


def advisories(framework: str | None = None) -> tuple[Advisory, ...]:
    """Every known bug (of one framework), ordered by id."""
    known, _ = _catalogue()
    return tuple(one for one in known.values() if framework in (None, one.framework))


def patches(framework: str | None = None) -> tuple[Patch, ...]:
    """Every cure (of one framework), ordered by id."""
    _, known = _catalogue()
    return tuple(one for one in known.values() if framework in (None, one.framework))


@functools.cache
def _catalogue() -> tuple[dict[str, Advisory], dict[str, Patch]]:
    found_advisories: dict[str, Advisory] = {}
    found_patches: dict[str, Patch] = {}
    for one in (*_own(), *_from_outside()):
        advisory = one.advisory if isinstance(one, Patch) else one
        # Ours come first: an id that is taken is not replaced from outside.
        if found_advisories.setdefault(advisory.id, advisory) is not advisory:
            print(f"truestep: a second advisory with the id {advisory.id} is ignored", file=sys.stderr)
        elif isinstance(one, Patch):
            found_patches[one.id] = one
    return dict(sorted(found_advisories.items())), dict(sorted(found_patches.items()))


def _own() -> Iterator[Advisory | Patch]:
    for framework in _FRAMEWORKS:
        package = importlib.import_module(f"{__package__}.{framework}")
        for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
            if not entry.name.startswith("_"):
                yield from _members(importlib.import_module(f"{package.__name__}.{entry.name}"))


def _from_outside() -> Iterator[Advisory | Patch]:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            found = tuple(_members(entry.load()))
        # Code of others, run at import: whatever it raises must not cost the run.
        except Exception as error:
            print(
                f"truestep: advisories {entry.name!r} ({entry.value}) could not be loaded: {type(error).__name__}: {error}",
                file=sys.stderr,
            )
            continue
        yield from found


def _members(thing: object) -> Iterator[Advisory | Patch]:
    if isinstance(thing, (Advisory, Patch)):
        yield thing
    elif isinstance(thing, ModuleType):
        yield from _members(thing.ADVISORY)
        if hasattr(thing, "PATCH"):
            yield from _members(thing.PATCH)
    elif isinstance(thing, Iterable) and not isinstance(thing, (str, bytes)):
        for one in thing:
            yield from _members(one)
    else:
        raise TypeError(f"expected an Advisory, a Patch, a module or an iterable of these, not {type(thing).__name__}")
