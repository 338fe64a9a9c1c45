"""The cures of TRL and accelerate through the public interface, on the releases that are installed."""

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
from truestep.patches import Patch
from truestep.patches.catalogue import patches

FRAMEWORKS = ("trl", "accelerate")
PATCHES = [one for framework in FRAMEWORKS for one in patches(framework)]
#: beside the cell of its advisory, what a cure must reach as well
ALSO = {
    "truestep-2026-40": ["trl-hunyuan.lm-W1-K2-objective:dapo_fresh"],
    "truestep-2026-42": ["trl-modernbert_decoder.lm-W1-K1-objective:dpo_sigmoid", "trl-modernbert_decoder.lm-W1-K1"],
    "accelerate-plugin-clipping": ["accelerate-mlp-W1-K2-engine:deepspeed-stage:1-config:plugin"],
}
#: what is right without the patches, and must be with them
RIGHT = {
    "trl": [
        "trl-neox.lm-W1-K2-objective:dapo_fresh", "trl-gpt2.lm-W1-K2-objective:dapo_fresh-batch:equal",
        "trl-llama.lm-W1-K2-objective:dpo_sigmoid", "trl-llama.lm-W1-K1-objective:orpo", "trl-llama.lm-W1-K2-objective:simpo",
    ],
    "accelerate": [
        "accelerate-mlp-W1-K2x4-sampler:epoch", "accelerate-mlp-W2-K2x2e2-sampler:random",
        "accelerate-mlp-W2-K2x3-batch:padded-split_batches:true-dispatch_batches:true-checkpoint:reload",
    ],
}  # fmt: skip


def environment() -> dict[str, str]:
    names = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "DS_ACCELERATOR": "cpu"}
    return {**{k: v for k, v in os.environ.items() if k != "RANK"}, **names}


def verdicts(cells: list[str], *options: str) -> dict[str, Any]:
    """Cell -> its record, as ``truestep run`` prints it."""
    command = [sys.executable, "-m", "truestep.cli", "run", "--json", *options, *cells]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1200)
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(records) == len(cells), result.stderr
    return {record["id"]: record for record in records}


def python(code: str, path: Path | None = None) -> Any:
    """What a fresh interpreter prints last, as JSON; modules in ``path`` come first."""
    given = environment()
    if path is not None:
        given["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), given.get("PYTHONPATH", "")]))
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=given, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def here(framework: str) -> list[Patch]:
    """The patches that fit what is installed: by version and, for those on DeepSpeed, with it."""
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    version, deepspeed = importlib.metadata.version(framework), importlib.util.find_spec("deepspeed") is not None
    found = [one for one in patches(framework) if one.advisory.affects(version)]
    found = [one for one in found if one.advisory.cell.startswith(f"{framework}-")]  # else another framework shows it
    found = [one for one in found if deepspeed or "engine:deepspeed" not in one.advisory.cell]
    if not found:
        pytest.skip(f"{framework} {version} has none of the bugs that there are cures for")
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_patched_step_is_right_and_an_unpatched_one_wrong(framework: str) -> None:
    cells = {cell: one.id for one in here(framework) for cell in (one.advisory.cell, *ALSO.get(one.id, ()))}
    before, after = verdicts(list(cells)), verdicts(list(cells), "--patch")
    assert {i: (r["verdict"], r.get("advisory")) for i, r in before.items()} == {i: ("wrong", a) for i, a in cells.items()}
    assert {i: r["verdict"] for i, r in after.items()} == dict.fromkeys(cells, "pass")
    assert all(any(line.startswith(f"applied {cells[i]}:") for line in r["patches"]) for i, r in after.items())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_right_step_is_left_alone(framework: str) -> None:
    here(framework)
    assert {i: r["verdict"] for i, r in verdicts(RIGHT[framework], "--patch").items()} == dict.fromkeys(RIGHT[framework], "pass")


def test_taken_back_the_same_functions_are_in_place_wherever_they_were_taken_by_name() -> None:
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    identifier = "accelerate-dispatched-skip"
    if identifier not in [one.id for one in here("accelerate")]:
        pytest.skip("this accelerate does not have the bug")
    code = f"""
    import json, truestep
    import accelerate, accelerate.accelerator, accelerate.data_loader
    holders = [accelerate, accelerate.accelerator, accelerate.data_loader]
    before = [one.skip_first_batches for one in holders]
    states = [truestep.patch({identifier!r})[0].state]
    during = [one.skip_first_batches for one in holders]
    truestep.unpatch({identifier!r})
    after = [one.skip_first_batches for one in holders]
    changed = [a is not b for a, b in zip(before, during)]
    print(json.dumps([states, changed, len(set(during)) == 1, [a is b for a, b in zip(before, after)]]))
    """
    states, changed, alike, same = python(code)
    assert states == ["applied"]
    assert all(changed) and alike and all(same)


def stub(folder: Path, framework: str, version: str, module: str, source: str = "") -> None:
    """A package that says it is that release of the framework, with this source in the module."""
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        if parent == folder:
            break
        (parent / "__init__.py").touch()
    path.write_text(source)
    (folder / f"{framework}-{version}.dist-info").mkdir()
    (folder / f"{framework}-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {framework}\nVersion: {version}\n"
    )


@pytest.mark.parametrize("one", PATCHES, ids=lambda one: one.id)
def test_a_release_without_the_bug_is_left_alone(one: Patch, tmp_path: Path) -> None:
    stub(tmp_path, one.framework, "0.0.1", one.module)
    code = f"import json, truestep; print(json.dumps([[s.state, s.reason] for s in truestep.patch({one.id!r})]))"
    [[state, reason]] = python(code, tmp_path)
    assert state == "declined"
    assert "not affected" in reason


@pytest.mark.parametrize("one", PATCHES, ids=lambda one: one.id)
def test_an_unknown_source_is_refused(one: Patch, tmp_path: Path) -> None:
    name = one.targets[0].split(".")
    source = f"def {name[0]}(): ...\n" if len(name) == 1 else f"class {name[0]}:\n    def {name[1]}(self): ...\n"
    stub(tmp_path, one.framework, one.advisory.affected[-1][0], one.module, source)
    for other in {entry.partition(":")[0] for entry in one.relies_on if ":" in entry}:
        path = tmp_path.joinpath(*other.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    code = f"import json, truestep; print(json.dumps([[s.state, s.reason] for s in truestep.patch({one.id!r})]))"
    [[state, reason]] = python(code, tmp_path)
    assert state == "refused"
    assert "not one that the cure was verified on" in reason


ALONE = """
import os, sys
import torch, torch.distributed as dist
rank = 1 if os.fork() == 0 else 0
dist.init_process_group("gloo", rank=rank, world_size=2, store=dist.FileStore(sys.argv[1], 2))
os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
import truestep
truestep.patch()
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
loader = accelerator.prepare(torch.utils.data.DataLoader(list(range(8)), batch_size=2, shuffle=True))
if rank == 0:
    print("BATCH", next(iter(loader)).tolist(), flush=True)
dist.barrier()
"""


def test_one_rank_may_look_at_its_batches_alone(tmp_path: Path) -> None:
    """A loader is prepared by every rank, but what is agreed on must not wait for all of them to iterate."""
    pytest.importorskip("accelerate")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, str(tmp_path / "store")],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29771"},
    )  # fmt: skip
    assert "BATCH" in done.stdout, done.stderr[-2000:]
