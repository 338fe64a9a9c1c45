"""The scripts beside FINDINGS.md: they stand alone, compile, and each is linked from the page."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parents[1] / "reports" / "published"
SCRIPTS = sorted(path for path in (PUBLISHED / "scripts").glob("*.py") if path.stem not in ("heads_table", "ablation"))  # those write pages of their own


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.stem)
def test_a_script_stands_alone(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert "truestep" not in imported
    assert ast.get_docstring(tree)
    pages = "".join(page.read_text(encoding="utf-8") for page in PUBLISHED.glob("*.md"))
    assert f"scripts/{script.name}" in pages
