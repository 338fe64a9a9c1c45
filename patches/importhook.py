"""Call back when a module has been imported, so that a patch can be asked for before the framework is.

One finder at the head of ``sys.meta_path``. It finds nothing by itself: it lets the other finders do their
work and puts a note on the loader. It is there only while somebody waits.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Callback = Callable[[ModuleType], None]


class _NotifyingLoader(importlib.abc.Loader):
    """Stands in for the true loader until the module has run."""

    def __init__(self, loader: importlib.abc.Loader, spec: importlib.machinery.ModuleSpec, hook: ImportHook) -> None:
        self._loader = loader
        self._spec = spec
        self._hook = hook

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Put the true loader back first: importlib.resources, inspect and pickle look at it.
        self._spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hook.loaded(module)


class ImportHook(importlib.abc.MetaPathFinder):
    """Callbacks by module name, each called once."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, Callback]] = {}
        self._finding: set[str] = set()

    def wait_for(self, module: str, key: str, callback: Callback) -> None:
        """Call back when ``module`` has been imported; the same key twice waits once."""
        self._waiting.setdefault(module, {})[key] = callback
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self, key: str) -> None:
        """Stop waiting. When nobody waits any more, the finder leaves ``sys.meta_path``."""
        for module in list(self._waiting):
            self._waiting[module].pop(key, None)
            if not self._waiting[module]:
                del self._waiting[module]
        self._leave_if_idle()

    def loaded(self, module: ModuleType) -> None:
        callbacks = self._waiting.pop(module.__name__, {})
        self._leave_if_idle()
        for callback in callbacks.values():
            callback(module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._waiting or fullname in self._finding:
            return None
        # A finder may ask us again (a lazy importer that starts over): answer once.
        self._finding.add(fullname)
        try:
            spec = self._find_elsewhere(fullname, path, target)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _NotifyingLoader(spec.loader, spec, self)
        return spec

    def _find_elsewhere(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def _leave_if_idle(self) -> None:
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
