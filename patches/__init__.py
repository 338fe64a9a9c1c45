"""What is known to be wrong, and its cure: one file per bug, advisory and patch side by side.

Importing this package imports no torch and no framework; a patch touches a framework only when it is applied.
"""

from __future__ import annotations

from .advisory import Advisory
from .catalogue import advisories

# The function `patch` takes the place of the submodule of that name, which is loaded by now.
from .lifecycle import PatchStatus, patch, status, unpatch
from .patch import Patch

__all__ = ["Advisory", "Patch", "PatchStatus", "advisories", "patch", "status", "unpatch"]
