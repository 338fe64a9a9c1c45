"""truestep: does the framework take the optimizer step that you think it takes?

Importing this package imports neither torch nor a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truestep.check import check_step as check_step
    from truestep.check import objectives as objectives
    from truestep.check import splits as splits
    from truestep.fixtures.drivers.own import Report as Report
    from truestep.fixtures.own_models import Term as Term
    from truestep.patches import patch as patch
    from truestep.patches import unpatch as unpatch

__version__ = "0.1.0"
__all__ = ["Report", "Term", "__version__", "check_step", "objectives", "patch", "splits", "unpatch"]

_WHERE = {
    "check_step": "truestep.check",
    "objectives": "truestep.check",
    "splits": "truestep.check",
    "Report": "truestep.fixtures.drivers.own",
    "Term": "truestep.fixtures.own_models",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    if name in ("patch", "unpatch"):
        from truestep import patches

        return getattr(patches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
