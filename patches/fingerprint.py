"""The second guard of a patch: is the code it wraps the code it was verified on?

The source is read from the module's file and not by ``inspect.getsource``: DeepSpeed puts an nvtx wrapper
around many methods, and a patch of ours (or of somebody else) must not look like a changed source.
What does not change behaviour does not count: comments, docstrings, layout, decorators for profiling.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PROFILING = frozenset({"instrument_w_nvtx"})
# Position, and what only some Python versions fill in: a digest must not depend on the interpreter.
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_params", "type_ignores"})


def fingerprint(sources: Mapping[str, str], names: Iterable[str]) -> str:
    """sha256 over the named functions: ``module:Class.method`` or ``module:function``, sources by module.

    One that is absent counts as such: which helper exists differs between versions and belongs to the behaviour.
    """
    trees = {module: ast.parse(source) for module, source in sources.items()}
    digest = hashlib.sha256()
    for name in names:
        module, _, inner = name.partition(":")
        node = _find(trees[module], inner.split("."))
        digest.update(f"{name}={'absent' if node is None else _dump(node)}\n".encode())
    return digest.hexdigest()


def fingerprint_at(root: str | Path, module: str, names: Iterable[str]) -> str:
    """The fingerprint of functions of the package that lies in the folder ``root``.

    A name without a module belongs to ``module``.
    """
    full = [name if ":" in name else f"{module}:{name}" for name in names]
    sources = {}
    for one in {name.partition(":")[0] for name in full}:
        sources[one] = Path(root).joinpath(*one.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    return fingerprint(sources, full)


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
    first = body[0] if body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if is_text else body
