"""``python -m truestep.patches MODULE FUNCTION...``: the fingerprint of installed source, for ``Patch.fingerprints``."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

from .fingerprint import _find, fingerprint


def main(arguments: list[str]) -> int:
    """Print it; the module is not imported, only the packages above it. 2 where there is no such source."""
    if len(arguments) < 2:
        print("usage: python -m truestep.patches MODULE FUNCTION... (function, or Class.method)", file=sys.stderr)
        return 2
    module, names = arguments[0], arguments[1:]
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        print(f"truestep: no source of {module!r}: give the dotted name of an installed module", file=sys.stderr)
        return 2
    source = Path(spec.origin).read_text(encoding="utf-8")
    absent = [name for name in names if _find(ast.parse(source), name.split(".")) is None]
    if absent:
        print(f"truestep: {module} has no function {absent[0]!r}: give function or Class.method", file=sys.stderr)
        return 2
    print(fingerprint({module: source}, [f"{module}:{name}" for name in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
