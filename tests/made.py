"""Results files for tests, written by the store that real runs write with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from truestep.fixtures.cell import parse
from truestep.reports.store import Store

DROPPED, OTHER, THIRD = "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu", "deepspeed-mlp-W1-K2-stage:1", "deepspeed-mlp-W2-K4"
PACKAGES = {"deepspeed": "0.18.9", "torch": "2.13.0"}


def row(name: str = DROPPED, verdict: str = "pass", advisory: str = "", *, figure: float = 0.647, kinds: Iterable[str] = ("dropped",), **more: Any) -> dict[str, Any]:
    """A verdict as ``Verdict.to_json`` writes it, with what a probe adds."""
    wrong = verdict in ("wrong", "by-design")
    check = {"name": "gradient", "step": 0, "figure": figure if wrong else 1e-7, "bound": 5e-7, "noise": 2e-7, "where": "net.last.weight", "widest": 6e-7}
    diagnosis = {
        "kinds": list(kinds), "words": "micro-batches 2 and 3 of 4 have weight 0", "weights": [[1.0, 0.0, 0.0, 1.0]], "residual": 1e-7,
        "unit": "micro-batch", "samples": [], "tokens": [], "doubt": 4e-7, "condition": 2.1, "sure": "certain", "why": "", "where": [],
    }  # fmt: skip
    reason = "" if verdict == "pass" else f"gradient of step 1 is off by {figure:g}" if wrong else f"why it is {verdict}"
    return {
        "family": "offload", "question": "Does offloading change the step?", "cell": parse(name).to_json(), "id": name, "verdict": verdict,
        "reason": reason, "checks": [check] if wrong or verdict == "pass" else [], "diagnosis": diagnosis if wrong else None, "advisory": advisory,
        "besides": [], "versions": PACKAGES, "stand_ins": ["a device: there is none"], "patches": [], "link": "", "facts": {}, "milliseconds": 12.5,
        "repeated": wrong, **more,
    }  # fmt: skip


def results(path: Path, rows: Iterable[Mapping[str, Any]], *, complete: bool | None = True, packages: Mapping[str, str] = PACKAGES, run: str = "") -> Path:
    """One run in a results file; complete: None for one that was cut off."""
    rows = list(rows)
    store = Store(path, run)
    environment = {
        "python": "3.11.7", "system": "Linux 6.1", "machine": "x86_64", "processor": "none", "cores": 2, "packages": dict(packages),
        "truestep": {"version": "0.1.0", "code": "0123456789ab", "commit": "", "dirty": None},
    }  # fmt: skip
    store.begin(path.stem, environment, {"patch": False, "setup": []}, len(rows))
    for one in rows:
        store.verdict(one)
    if complete is not None:
        store.end(complete)
    assert store.close() == ""
    return path


def first_schema(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"schema": "truestep-results-1", **one}) + "\n" for one in rows))
    return path
