"""Apply patches and take them back: before or after the framework is imported, once, and with two guards.

A patch is applied only where the version is one that has the bug *and* the source is one on which the cure
was run. A version without the bug declines quietly; a source that nobody has seen is refused loudly.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from .catalogue import patches
from .fingerprint import fingerprint_at
from .importhook import ImportHook
from .patch import Patch, Undo

State = Literal["applied", "pending", "declined", "refused", "reverted"]


@dataclass(frozen=True)
class PatchStatus:
    """What became of one patch in this process."""

    id: str
    framework: str
    version: str | None
    state: State
    reason: str


_lock = threading.RLock()
_hook = ImportHook()
_records: dict[str, PatchStatus] = {}
_undos: dict[str, Undo] = {}
_said: set[str] = set()


def patch(ids: Iterable[str] | str | None = None) -> tuple[PatchStatus, ...]:
    """Apply these patches (all of them by default), now or as soon as the framework is imported.

    Asking twice changes nothing. The answer says what became of each.
    """
    wanted = _select(ids)
    with _lock:
        for one in wanted:
            if _state(one) not in ("applied", "pending"):
                _begin(one)
        answer = tuple(_records[one.id] for one in wanted)
    _say_declined(answer)
    return answer


def unpatch(ids: Iterable[str] | str | None = None) -> tuple[PatchStatus, ...]:
    """Take these patches back (all of them by default): the very same functions are in place as before."""
    with _lock:
        changed = []
        for one in _select(ids):
            state = _state(one)
            if state == "applied":
                _undos.pop(one.id)()
                changed.append(_record(one, _records[one.id].version, "reverted", "taken back"))
            elif state == "pending":
                _hook.forget(one.id)
                changed.append(_record(one, _records[one.id].version, "reverted", "withdrawn before it was applied"))
        return tuple(changed)


def status() -> tuple[PatchStatus, ...]:
    """What became of every patch that was asked for in this process, ordered by id."""
    with _lock:
        return tuple(_records[key] for key in sorted(_records))


def _select(ids: Iterable[str] | str | None) -> tuple[Patch, ...]:
    known = {one.id: one for one in patches()}
    if ids is None:
        return tuple(known.values())
    names = (ids,) if isinstance(ids, str) else tuple(ids)
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"no patch {missing[0]!r}; there are: {', '.join(known) or 'none'}")
    return tuple(known[name] for name in names)


def _state(one: Patch) -> State | None:
    return _records[one.id].state if one.id in _records else None


def _record(one: Patch, version: str | None, state: State, reason: str) -> PatchStatus:
    record = PatchStatus(one.id, one.framework, version, state, reason)
    _records[one.id] = record
    return record


def _begin(one: Patch) -> None:
    module = sys.modules.get(one.module)
    # A module that is being imported at this moment (by another thread, or by the import that runs us) is not
    # there yet: wait for its end.
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        _apply(one, module)
        return
    root = _find_root(one.framework)
    if root is None:
        _record(one, None, "pending", f"{one.framework} is not installed here; will be applied if it is imported")
    else:
        version = _version(one.framework, root)
        if not _guards_pass(one, version, root):
            return
        _record(one, version, "pending", f"waits for the import of {one.framework}")
    _hook.wait_for(one.module, one.id, lambda loaded: _on_import(one, loaded))


def _on_import(one: Patch, module: ModuleType) -> None:
    with _lock:
        if _state(one) == "pending":
            _apply(one, module)


def _apply(one: Patch, module: ModuleType) -> None:
    # From the module itself: what was found before the import need not be what was imported.
    root = Path(module.__file__ or "").parents[one.module.count(".")]
    version = _version(one.framework, root)
    if not _guards_pass(one, version, root):
        return
    try:
        _undos[one.id] = one.wrap(module)
    except (AttributeError, KeyError, TypeError) as error:
        # The source is known and yet the object is not what it says: some other code has replaced it.
        _refuse(one, version, f"{one.module} does not hold what its source says ({type(error).__name__}: {error})")
        return
    _record(one, version, "applied", f"{one.framework} {version}: {one.advisory.title}")
    _say(f"patched {one.id} ({one.framework} {version}): {one.advisory.title}")


def _guards_pass(one: Patch, version: str | None, root: Path) -> bool:
    if version is None:
        _refuse(one, version, f"cannot tell which version of {one.framework} this is")
        return False
    if not one.advisory.affects(version):
        _record(one, version, "declined", f"not affected: {one.advisory.why_not_affected(version)}")
        return False
    try:
        digest = fingerprint_at(root, one.module, one.relies_on)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        _refuse(one, version, f"the source of {one.module} cannot be read ({type(error).__name__})")
        return False
    if digest not in one.fingerprints:
        _refuse(one, version, f"the source of {one.module} is not one that the cure was verified on ({digest[:12]})")
        return False
    return True


def _refuse(one: Patch, version: str | None, why: str) -> None:
    fixed = one.advisory.fixed_in(version)
    cure = f"install {one.framework}>={fixed}" if fixed else "avoid the settings that trigger it"
    _record(one, version, "refused", f"{why}; the bug may well be there: {cure}, or report this source")
    _say(f"REFUSED to patch {one.id} ({one.framework} {version}): {_records[one.id].reason}")


def _find_root(framework: str) -> Path | None:
    """The folder that the framework's package lies in, without importing the framework."""
    try:
        spec = importlib.util.find_spec(framework)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent


def _version(framework: str, root: Path) -> str | None:
    """The version of the copy in this folder: several may be on the path, and the first one need not be it."""
    for found in importlib.metadata.distributions(name=framework, path=[str(root)]):
        return found.version
    try:
        return importlib.metadata.version(framework)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(framework), "__version__", None)


def _say(line: str) -> None:
    # Once per process, and from one rank only: eight ranks need not say it eight times.
    if line not in _said and os.environ.get("RANK", "0") == "0":
        print(f"truestep: {line}", file=sys.stderr, flush=True)
    _said.add(line)


def _say_declined(records: Iterable[PatchStatus]) -> None:
    groups: dict[tuple[str, str | None], list[str]] = {}
    for record in records:
        if record.state == "declined":
            groups.setdefault((record.framework, record.version), []).append(f"{record.id} ({record.reason})")
    for (framework, version), parts in groups.items():
        _say(f"{framework} {version}: nothing to do for {', '.join(parts)}")
