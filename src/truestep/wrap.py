"""``truestep exec -- COMMAND``: the patches in a command and in all Python children of it.

Python imports ``sitecustomize`` from its path at start; a folder that holds ours goes first in
PYTHONPATH, and an own ``sitecustomize`` that it hides is run after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SITE = '''"""Written by truestep exec: applies truestep's patches when their modules are imported."""
import importlib.machinery
import importlib.util
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
rest = [p for p in sys.path if os.path.abspath(p or ".") != here]
found = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
if found is not None and found.loader is not None:
    found.loader.exec_module(importlib.util.module_from_spec(found))
import truestep.patches

truestep.patches.patch()
'''


def run(command: Sequence[str]) -> int:
    """The command's own exit code; 127 where it cannot be started."""
    with tempfile.TemporaryDirectory(prefix="truestep-exec-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            return subprocess.run(list(command), env=dict(os.environ, PYTHONPATH=path), check=False).returncode
        except OSError as error:
            print(f"truestep: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
