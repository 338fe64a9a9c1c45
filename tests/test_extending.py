"""A framework, a probe and a bug from outside: docs/extending.md is played in an empty folder, outside of the checkout.

About a minute of computing: it installs three small packages and drives a framework through a dozen workers.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pages
import pytest

PAGE = "docs/extending.md"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pages.Shell, list[pages.Ran]]:
    """The folder of somebody who has walked the page from top to bottom, their shell, and what they saw."""
    folder = tmp_path_factory.mktemp("reader")
    shell = pages.shell(folder, **pages.environment(folder / ".venv"))
    return folder, shell, pages.play(pages.text_of(PAGE), folder, shell)


def test_the_page_prints_what_it_shows(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    ran = reader[2]
    assert len(ran) >= 10
    for one in ran:
        assert not one.missing, f"$ {one.line}\n{one.printed[-3000:]}\nthe page shows, and it was not printed:\n{one.missing}"


def test_red_where_the_bug_is_and_green_where_it_is_not(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    codes = {(one.line, one.code) for one in reader[2]}
    red = {line for line, code in codes if code}
    assert red == {"truestep run toyloop-mlp-W1-K4", "cd yours && pytest -q"}
    assert all(code == 1 for _, code in codes if code)  # findings, not unusable input


def test_each_is_one_file(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    files = [path.name for path in (reader[0] / "toyloop-truestep").glob("*.py")]
    assert sorted(files) == ["toyloop_1.py", "toyloop_driver.py"]
    assert len((reader[0] / "toyloop-truestep" / "toyloop_driver.py").read_text().splitlines()) < 60


def test_a_probe_from_outside_has_the_family_and_the_options(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    folder, shell, _ = reader
    rows = [json.loads(line) for line in (folder / "yours" / "verdicts.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "verdict" in row]
    assert len({row["id"] for row in rows}) == len(rows) == 10
    assert {(row["family"], row["verdict"], row["question"]) for row in rows} == {
        ("toyloop", "pass", "Cutting a batch into micro-batches must not change the step.")
    }
    assert all(any(line.startswith("applied toyloop-1") for line in row["patches"]) for row in rows)
    listed = shell("cd yours && pytest -q --list-cells -k tight").stdout.splitlines()
    assert [line for line in listed if line.startswith("toyloop-")] == [
        f"toyloop-mlp-W1-K{k}-clipping:tight" for k in (1, 2, 4)
    ]


def test_what_the_framework_does_not_offer_is_skipped_with_the_drivers_reason(
    reader: tuple[Path, pages.Shell, list[pages.Ran]],
) -> None:
    done = reader[1]("truestep run toyloop-mlp-W2-K2 toyloop-mlp-W1-K3.1 toyloop-mlp-W1-K1-clipping:on")
    assert (done.returncode, done.stdout.strip()) == (2, "truestep: knob clipping cannot be 'on': use one of off, tight, loose")
    done = reader[1]("truestep run toyloop-mlp-W2-K2 toyloop-mlp-W1-K3.1")
    assert done.returncode == 2  # nothing was judged
    assert "toyloop trains in one process" in done.stdout and "toyloop's windows are all of one length" in done.stdout


def test_random_cells_of_a_framework_from_outside(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    hunted, swept = (reader[1](f"truestep {act} --framework toyloop -n 6 --seed 3") for act in ("hunt", "sweep"))
    assert (hunted.returncode, swept.returncode) == (0, 0), hunted.stdout + swept.stdout  # toyloop 1.1 is right
    assert "6 pass" in hunted.stdout and swept.stdout.count("PASS: toyloop-") == 6


def test_the_digest_is_refused_for_what_is_not_there(reader: tuple[Path, pages.Shell, list[pages.Ran]]) -> None:
    for given, said in {
        "toyloop.trainer Trainer.walk": "truestep: toyloop.trainer has no function 'Trainer.walk'",
        "toyloop.nowhere step": "truestep: no source of 'toyloop.nowhere'",
        "toyloop.trainer": "usage: python -m truestep.patches MODULE FUNCTION...",
    }.items():
        done = reader[1](f"python -m truestep.patches {given}")
        assert done.returncode == 2 and done.stdout.startswith(said) and done.stdout.count("\n") == 1, done.stdout


# --- drivers that cannot be used, and one with ranks ---------------------------------------------------------------------

DRIVERS = {
    "importloop": "raise RuntimeError('no such\\n luck')",
    "oldloop": "INTERFACE = 0",
    "bareloop": "INTERFACE, NAME, KNOBS = 1, 'bareloop', {'dtype': ('fp32',)}",
    "abstractloop": "from truestep.fixtures.drivers.simple import SimpleDriver\nclass Driver(SimpleDriver):\n    NAME = 'abstractloop'",
    "otherloop": "from truestep.fixtures.drivers.torch import *",
    "raisingloop": '''
from truestep.fixtures.drivers.simple import SimpleDriver


class Driver(SimpleDriver):
    NAME = "raisingloop"

    def refuses(self, cell):
        raise KeyError("not thought of")

    def run(self, cell):
        return []
''',
    "rankloop": '''
from truestep.fixtures.drivers.simple import SimpleDriver


class Driver(SimpleDriver):
    NAME = "rankloop"
    KNOBS = {**SimpleDriver.KNOBS, "reduce": ("yes", "no")}

    def run(self, cell):
        import torch.distributed as dist

        model = self.model(cell)
        optimizer = self.optimizer(cell, model)
        watch, logs = self.watch(cell, model, optimizer), []
        for step in range(cell.split.steps):
            optimizer.zero_grad()
            parts = self.micro_batches(cell, step)
            counted = sum(part.mask.sum() for part in parts)
            dist.all_reduce(counted)
            loss = sum(self.losses(cell, model, part)[part.mask].sum() for part in parts) / counted
            loss.backward()
            logged = loss.detach()
            dist.all_reduce(logged)
            for parameter in model.parameters() if cell.knob("reduce") == "yes" else ():
                dist.all_reduce(parameter.grad)
            optimizer.step()
            logs.append({"loss": logged.item()})
        return watch.traces(logs)
''',
}
SAID = {
    "importloop": "failed to load: RuntimeError: no such luck",
    "oldloop": "has INTERFACE 0, this truestep has 1",
    "bareloop": "lacks SGD, ADAM, MUST_CLIP, version, supports, load,",
    "abstractloop": "failed to load: TypeError: Can't instantiate abstract class Driver",
    "otherloop": "calls itself 'torch': the entry point must have that name",
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pages.Shell]:
    """A folder on the path with a distribution that brings all of these drivers, and a shell there."""
    folder = tmp_path_factory.mktemp("outside")
    entries = []
    for name, source in DRIVERS.items():
        (folder / f"{name}_driver.py").write_text(source + "\n")
        entries.append(f"{name} = {name}_driver" + ":Driver" * ("class Driver" in source))
    groups = "[truestep.drivers]\n" + "\n".join(entries) + "\n"
    for name, points in (("loops", groups), ("rankloop", ""), ("raisingloop", "")):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
    (folder / "rankloop.py").write_text("")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return folder, pages.shell(folder, PYTHONPATH=path)


@pytest.mark.parametrize("name", SAID)
def test_a_driver_that_cannot_be_used_costs_one_line(outside: tuple[Path, pages.Shell], name: str) -> None:
    done = outside[1](f"truestep run {name}-mlp-W1-K1")
    assert done.returncode == 2
    assert done.stdout.startswith(f"truestep: driver '{name}' ({name}_driver") and "of loops 1.0)" in done.stdout
    assert SAID[name] in done.stdout and done.stdout.count("\n") == 1, done.stdout


def test_a_broken_driver_costs_its_own_probe_and_not_the_run(outside: tuple[Path, pages.Shell]) -> None:
    folder, shell = outside
    (folder / "test_loops.py").write_text(
        "from truestep.probes.base import grid, probe\n\n\n"
        "@probe([*grid('importloop', windows=(1, 2)), *grid('raisingloop', windows=(1, 2)),\n"
        "        *grid('rankloop', world_size=2, windows=(2, [3, 1]), reduce=('yes', 'no'))])\n"
        "def test_loops(step):\n    'Is it right?'\n    step.must_be_right()\n"
    )
    done = shell("pytest -q -p no:cacheprovider test_loops.py")
    text = done.stdout
    assert done.returncode == 1
    assert "2 failed, 2 passed, 2 errors" in text, text[-3000:]
    assert "test_loops[importloop-broken-driver]" in text and text.count(SAID["importloop"]) >= 1
    assert "test_loops[raisingloop-broken-driver]" in text and "failed in possible(raisingloop-mlp-W1-K1): KeyError" in text
    assert "Traceback" not in text
    # ranks work without a word in the driver, and where it forgets to reduce that is what is told
    assert "rankloop-mlp-W2-K2-reduce:no" in text
    assert "the gradient was not reduced over ranks" in text


def test_a_driver_that_raises_costs_its_own_cell(outside: tuple[Path, pages.Shell]) -> None:
    done = outside[1]("truestep run raisingloop-mlp-W1-K1")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "the driver failed: KeyError: 'not thought of'" in done.stdout


def test_what_is_built_in_runs_beside_broken_drivers(outside: tuple[Path, pages.Shell]) -> None:
    done: subprocess.CompletedProcess[str] = outside[1]("truestep run torch-mlp-W1-K1")
    assert done.returncode == 0 and done.stdout.startswith("PASS: torch-mlp-W1-K1"), done.stdout
