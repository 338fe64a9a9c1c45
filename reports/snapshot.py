"""Where a verdict was reached: versions, machine, and the state of truestep itself. Standard library only."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: what the answer may depend on besides the frameworks that truestep drives
BESIDES = ("numpy", "datasets", "tokenizers", "triton", "ray", "vllm", "flash-attn", "bitsandbytes", "liger-kernel")


def snapshot() -> dict[str, Any]:
    """The environment of this process as data.

    python, system, machine, processor : as ``platform`` names them; cores: that this process may use
    packages : installed version of every package that a verdict may depend on
    truestep : {version, code: digest of its source files, commit and dirty where it is a git checkout, else "" and None}
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "packages": packages(),
        "truestep": dict(_itself()),
    }


def packages() -> dict[str, str]:
    from truestep.fixtures.drivers import VERIFIED, frameworks

    found = {}
    for name in dict.fromkeys((*VERIFIED, *frameworks(), *BESIDES)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _itself() -> Mapping[str, Any]:
    import truestep

    home = Path(truestep.__file__).parent
    commit, dirty = _commit(home.parents[1])
    return {"version": truestep.__version__, "code": _digest(), "commit": commit, "dirty": dirty}


def _digest() -> str:
    """Of every source file of truestep: two runs with the same digest ask the same questions in the same way."""
    from importlib import import_module

    total = hashlib.sha256()
    for room in ("truestep.fixtures", "truestep.patches", "truestep.probes", "truestep.reports", "truestep"):
        folder = Path(str(import_module(room).__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            if "published" not in path.parts:
                total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def _commit(root: Path) -> tuple[str, bool | None]:
    """The commit of the checkout that truestep runs from and whether it was changed since; ("", None) for a wheel."""
    if not (root / ".git").exists() or not (root / "probes").is_dir():
        return "", None
    try:
        said = [
            subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, timeout=20, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return "", None
    return said[0], bool(said[1])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
