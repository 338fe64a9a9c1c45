"""Shared by the tests: the tests folder is importable in workers (seeded faults live there)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.append(str(HERE))  # ``import pages``: under --import-mode=importlib nobody else puts it there


@pytest.fixture(autouse=True, scope="session")
def _faults_are_importable() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), before]))
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture
def needs_deepspeed() -> None:
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed: see README, tests")


@pytest.fixture
def needs_the_finding() -> None:
    """For pages that show a finding of transformers-47688."""
    from truestep.patches import advisories

    (advisory,) = [one for one in advisories("transformers") if one.id == "transformers-47688"]
    try:
        release = installed("transformers")
    except PackageNotFoundError:
        pytest.skip("transformers is not installed: see README, tests")
    if not advisory.affects(release):
        pytest.skip(f"transformers {release} does not have the finding that the page shows: show another one")


@pytest.fixture
def judged(needs_deepspeed: None) -> Iterator[Callable[..., dict[str, Any]]]:
    """``judged(ids, setup=..., patch=...)`` -> id -> verdict, through real workers."""
    from truestep.fixtures.cell import parse

    from truestep.suite import Suite

    suites = []

    def run(ids: list[str], **options: Any) -> dict[str, Any]:
        suite = Suite(**options)
        suites.append(suite)
        cells = [parse(text) for text in ids]
        suite.submit(cells)
        return {cell.id: suite.verdict(cell) for cell in cells}

    yield run
    for suite in suites:
        suite.close()
