"""The cures of transformers' Trainer through the public interface, on the transformers that is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from truestep.patches import Advisory, advisories
from truestep.patches.catalogue import patches

pytestmark = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")

IDS = [one.id for one in patches("transformers")]
JUDGE = """
    import json, sys, tempfile
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    import truestep
    from truestep.fixtures.cell import parse
    from truestep.fixtures.drivers import Place, transformers as driver
    from truestep.reports.judge import judge

    folder = Path(tempfile.mkdtemp())
    driver.start(Place(0, 1, "cpu", folder / "store", folder))

    def verdict(cell):
        cell = parse(cell)
        return judge(cell, driver.run(cell), driver).verdict
"""


def known(identifier: str) -> Advisory:
    return next(one for one in advisories("transformers") if one.id == identifier)


def python(code: str, path: Path | None = None) -> Any:
    """What a fresh interpreter prints last, as JSON; modules in ``path`` come first."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1")
    environment.pop("RANK", None)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), environment.get("PYTHONPATH", "")]))
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def installed(identifier: str) -> bool:
    return known(identifier).affects(importlib.metadata.version("transformers"))


def test_a_patched_trainer_takes_the_right_step_and_an_unpatched_one_the_wrong_one_again() -> None:
    cells = {identifier: known(identifier).cell for identifier in IDS if installed(identifier)}
    if not cells:
        pytest.skip("this transformers has none of the bugs that there are cures for")
    code = f"""
    cells = {cells!r}
    before = {{i: verdict(c) for i, c in cells.items()}}
    states = {{s.id: s.state for s in truestep.patch(list(cells))}}
    during = {{i: verdict(c) for i, c in cells.items()}}
    truestep.unpatch(list(cells))
    after = {{i: verdict(c) for i, c in cells.items()}}
    print(json.dumps([before, states, during, after]))
    """
    before, states, during, after = python(textwrap.dedent(JUDGE) + textwrap.dedent(code))
    assert set(before.values()) == {"wrong"}
    assert set(states.values()) == {"applied"}
    assert set(during.values()) == {"pass"}
    assert after == before


def test_a_right_step_is_left_alone_by_all_patches_together() -> None:
    right = [
        "transformers-llama.lm-W1-K2-batch:prompted",
        "transformers-llama.lm-W1-K4.4.2b4-batch:prompted",
        "transformers-llama.lm-W1-K2-batch:prompted-clipping:tight",
    ]
    code = f"""
    truestep.patch({IDS!r})
    print(json.dumps([verdict(c) for c in {right!r}]))
    """
    assert python(textwrap.dedent(JUDGE) + textwrap.dedent(code)) == ["pass"] * len(right)


def test_a_patch_can_be_asked_for_before_the_import_and_taken_back() -> None:
    code = """
    import json, truestep; from truestep import patches
    first = [s.state for s in truestep.patch(IDS)]
    from transformers import Trainer
    second = [s.state for s in patches.status() if s.id in IDS]
    wrapped = hasattr(Trainer.compute_loss, "__wrapped__")
    truestep.unpatch(IDS)
    print(json.dumps([first, second, wrapped, hasattr(Trainer.compute_loss, "__wrapped__")]))
    """
    first, second, wrapped, left = python(f"IDS = {IDS!r}\n" + textwrap.dedent(code))
    assert set(first) <= {"pending", "declined"}
    assert ("applied" in second) == wrapped
    assert not left


@pytest.mark.parametrize("identifier", IDS)
def test_a_release_without_the_bug_is_left_alone(identifier: str, tmp_path: Path) -> None:
    advisory = known(identifier)
    introduced, fixed = advisory.affected[0][0], advisory.affected[-1][1]
    version = fixed or f"{int(introduced.split('.')[0]) - 1}.0.0"
    folder = tmp_path / "transformers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (tmp_path / f"transformers-{version}.dist-info").mkdir()
    (tmp_path / f"transformers-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n"
    )
    code = f"import json, truestep; print(json.dumps([[s.state, s.reason] for s in truestep.patch({identifier!r})]))"
    [[state, reason]] = python(code, tmp_path)
    assert state == "declined"
    assert "not affected" in reason


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformers-5.23.0.dist-info").mkdir()
    (tmp_path / "transformers-5.23.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformers\nVersion: 5.23.0\n"
    )
    folder = tmp_path / "transformers"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "trainer.py").write_text("class Trainer:\n    def compute_loss(self):\n        return 0\n")
    code = "import json, truestep; print(json.dumps([[s.state, s.reason] for s in truestep.patch('transformers-47688')]))"
    [[state, reason]] = python(code, tmp_path)
    assert state == "refused"
    assert "not one that the cure was verified on" in reason
