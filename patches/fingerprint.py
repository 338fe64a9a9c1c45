"""The second guard of a patch: is the code it wraps the code it was verified on?

The source is read from the module's file and not by ``inspect.getsource``: DeepSpeed puts an nvtx wrapper
around many methods, and a patch of ours (or of somebody else) must not look like a changed source.
What does not change behaviour does not count: comments, docstrings, layout, decorators for profiling.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PROFILING = frozenset({"instrument_w_nvtx"})
# Position, and what only some Python versions fill in: a digest must not depend on the interpreter.
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_params", "type_ignores"})


def fingerprint(source: str, names: Iterable[str]) -> str:
    """sha256 over the named functions (``Class.method`` or ``function``); one that is absent counts as such.

    Which helper exists differs between versions and belongs to the behaviour, hence no error.
    """
    tree = ast.parse(source)
    digest = hashlib.sha256()
    for name in names:
        node = _find(tree, name.split("."))
        digest.update(f"{name}={'absent' if node is None else _dump(node)}\n".encode())
    return digest.hexdigest()


def fingerprint_file(path: str | Path, names: Iterable[str]) -> str:
    """The fingerprint of functions of the module that was loaded from this file."""
    return fingerprint(Path(path).read_text(encoding="utf-8"), names)


def _find(tree: ast.Module, parts: list[str]) -> ast.AST | None:
    body: list[ast.stmt] = tree.body
    found: ast.AST | None = None
    for part in parts:
        # The last definition of a name is the one that counts at run time.
        matches = [
            node
            for node in body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == part
        ]
        if not matches:
            return None
        found = matches[-1]
        body = matches[-1].body
    return found


def _dump(node: Any) -> str:
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in _IGNORED_FIELDS or value is None or value == []:
                continue
            if name == "decorator_list":
                value = [one for one in value if not (isinstance(one, ast.Name) and one.id in _PROFILING)]
                if not value:
                    continue
            if name == "body" and isinstance(value, list):
                value = _without_docstring(value)
            fields.append(f"{name}={_dump(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(_dump(one) for one in node)}]"
    return repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        if isinstance(body[0].value.value, str):
            return body[1:]
    return body
