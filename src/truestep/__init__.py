"""truestep: does the framework take the optimizer step that you think it takes?

Importing this package imports neither torch nor a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truestep.patches import patch as patch
    from truestep.patches import unpatch as unpatch

__version__ = "0.1.0"
__all__ = ["__version__", "patch", "unpatch"]


def __getattr__(name: str) -> Any:
    if name in ("patch", "unpatch"):
        from truestep import patches

        return getattr(patches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
