"""The built wheel, installed in another folder, gives the same verdicts as the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SELECTION = ["-k", "mlp-W1-K4-stage:1 or mlp-W1-K1.8.2-stage:1", "-q"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("truestep-*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    names = zipfile.ZipFile(wheel).namelist()
    assert any(n == "truestep/probes/test_offload.py" for n in names)
    assert any(n == "truestep/patches/deepspeed/ds_7967.py" for n in names)
    assert not any(n.startswith(("tests/", "results/")) or "published" in n for n in names)
    return target


def _run(arguments: list[str], cwd: Path, path: str) -> tuple[int, list[str], str]:
    environment = dict(os.environ, PYTHONPATH=path)
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=cwd, env=environment,
                          capture_output=True, text=True, timeout=900, check=False)  # fmt: skip
    keep = (
        "offload ",
        "split ",
        "backwards ",
        "checkpoint ",
        "clipping ",
        "state ",
        "any ",
        "precision ",
        "readings ",
        "total ",
    )
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith(keep)], done.stdout


def test_the_wheel_gives_the_same_verdicts(needs_deepspeed: None, installed: Path, tmp_path: Path) -> None:
    inside = subprocess.run(
        [sys.executable, "-c", "import truestep, truestep.probes; print(truestep.__file__, truestep.probes.__file__)"],
        cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(installed)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(Path(p).is_relative_to(installed) for p in inside.stdout.split())
    here = _run(["probes", *SELECTION], ROOT, os.environ.get("PYTHONPATH", ""))
    there = _run(["--pyargs", "truestep.probes", *SELECTION], tmp_path, str(installed))
    assert there[0] == here[0] == 1  # set_train_batch_size is wrong in every release that was run
    assert there[1] == here[1] != [], there[2][-2000:]
