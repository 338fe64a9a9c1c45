"""What is known to be wrong, and its cure: one file per bug, advisory and patch side by side.

Importing this package imports no torch and no framework; a patch touches a framework only when it is applied.
"""

from __future__ import annotations

from .advisory import Advisory
from .catalogue import advisories
from .lifecycle import PatchStatus, status, unpatch

# Last: the function `patch` takes the place of the submodule of that name.
from .patch import Patch
from .lifecycle import patch  # isort: skip

__all__ = ["Advisory", "Patch", "PatchStatus", "advisories", "patch", "status", "unpatch"]
