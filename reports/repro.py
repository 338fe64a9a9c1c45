"""A standalone script for a cell: the framework and torch alone, no truestep, ready for an upstream issue.

The script has its own model, data, loop and reference, written from scratch for the cell's configuration: it confirms
a finding by other code than the code that found it. It exits with 1 where the step is wrong, 0 where it is right, and
2 where the framework refuses. The scripts of a framework come from the template in ``repro_<framework>.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from truestep.fixtures.cell import SAMPLES, Cell, CellError
from truestep.fixtures.drivers import driver_of


def script(cell: Cell) -> str:
    """The source of the script; raises CellError for a framework that has no template."""
    name = f"truestep.reports.repro_{cell.framework}"
    if find_spec(name) is None:
        raise CellError(f"no standalone script for {cell.framework!r} cells yet")
    source: str = import_module(name).script(cell)
    return source


#: imports once, then runs each script it is told of in a process of its own, forked before anything was computed
_LAUNCHER = """
import gc, importlib, os, runpy, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:  # then the script that needs it will say so
        pass
gc.collect(); gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    path = line.strip()
    child = os.fork()
    if child == 0:
        out = os.open(path + ".out", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1); os.dup2(out, 2)
        code = 3
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("done", status, flush=True)
"""


#: framework -> what its scripts import, so that a fork has it already
_IMPORTS = {
    "accelerate": ("accelerate",),
    "deepspeed": ("deepspeed",),
    "llamafactory": ("datasets", "peft", "accelerate", "transformers.trainer"),
    "openrlhf": ("datasets", "deepspeed"),
    "transformers": ("accelerate", "transformers.trainer"),
    "trl": ("datasets", "accelerate", "transformers.trainer", "trl.trainer.sft_trainer"),
}


def execute(cell: Cell, python: str = sys.executable) -> tuple[bool, str]:
    """Run the script in a process of its own: (whether it finds the step wrong, its last words)."""
    ((_, wrong, said),) = execute_many([cell], python)
    return wrong, said


def execute_many(cells: Iterable[Cell], python: str = sys.executable) -> Iterator[tuple[Cell, bool, str]]:
    """Run the scripts of several cells one by one, each in a process of its own; yields (cell, wrong, last words)."""
    cells = list(cells)
    wanted = sorted({name for cell in cells for name in _IMPORTS.get(cell.framework, ())})
    if any(cell.facts().get("engine") == "deepspeed" for cell in cells):
        wanted.append("deepspeed")
    if any(cell.model in ("llama", "qwen2") for cell in cells):
        wanted.append("transformers.models.llama.modeling_llama")
    with tempfile.TemporaryDirectory(prefix="truestep-repro-") as folder:
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu")
        environment["TRL_EXPERIMENTAL_SILENCE"] = "1"
        environment["TMPDIR"] = folder  # what a script leaves behind goes with it
        if "deepspeed" in wanted and find_spec("deepspeed") is not None:
            environment.setdefault("TORCH_EXTENSIONS_DIR", str(driver_of("deepspeed").extensions()))
        environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", "")])
        launcher = subprocess.Popen(
            [python, "-c", _LAUNCHER, "torch", "torch._dynamo", *wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=folder,
        )  # fmt: skip
        assert launcher.stdin is not None and launcher.stdout is not None
        try:
            while (line := launcher.stdout.readline()) and line.strip() != "ready":
                pass  # a framework may print while it is imported
            for number, cell in enumerate(cells):
                path = Path(folder) / f"repro-{number}.py"
                path.write_text(script(cell), encoding="utf-8")
                launcher.stdin.write(f"{path}\n")
                launcher.stdin.flush()
                while (line := launcher.stdout.readline()) and not line.startswith("done"):
                    pass
                code = int(line.split()[1]) if line else -1
                out = Path(f"{path}.out")
                yield cell, *_said(code, out.read_text(errors="replace") if out.exists() else "")
        finally:
            launcher.kill()
            launcher.wait()


def _said(code: int, output: str) -> tuple[bool, str]:
    """(whether the script found the step wrong, the first thing it found wrong or else its last words)."""
    lines = output.splitlines()
    said = [
        line
        for line in lines
        if " is off by " in line or line.endswith("<- WRONG") or line.startswith(("WRONG", "RIGHT", "REFUSED"))
    ]
    if code == 1 and any(line.startswith("WRONG") for line in said):
        return True, next((line for line in said if line.endswith("<- WRONG")), said[-1])
    return False, " | ".join(said[-2:]) or (lines or ["(no output)"])[-1][:300]


assert SAMPLES == 16  # the scripts deal out 16 samples
