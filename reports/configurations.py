"""Configurations in the words of those who set them: what is trained, by which engine, in which precision, on how many ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from truestep.fixtures.cell import Cell, CellError
from truestep.reports.results import Row

NAMES = {
    "deepspeed": "DeepSpeed", "openrlhf": "OpenRLHF", "llamafactory": "LLaMA-Factory", "trl": "TRL", "transformers": "transformers",
    "accelerate": "accelerate", "torch": "PyTorch", "own": "Own training loops",
}  # fmt: skip
#: in the order in which they are shown; others come behind
ORDER = tuple(NAMES)
#: objective, or what it begins with -> what is trained; the longest that fits counts
TRAINING = {
    **dict.fromkeys(("token_mean", "response", "turns", "last_turn", "sequence_mean", "whole_mean"), "SFT"),
    "document_mean": "pre-training", "smoothed": "SFT, label smoothing", "router": "SFT with routers",
    "dft": "SFT: DFT", "eaft": "SFT: EAFT", "asft": "SFT: ASFT", "response_distil": "distillation", "distil": "distillation", "gkd": "GKD",
    "gold": "GOLD", "reward": "reward model", "prm": "process reward model", "dpo": "DPO and its losses", "online_dpo": "online DPO", "xpo": "XPO",
    "kto": "KTO", "bco": "BCO", "orpo": "ORPO", "cpo": "CPO", "simpo": "SimPO", "tpo": "TPO", "a2po": "A*-PO", "grpo": "GRPO", "dapo": "DAPO",
    "bnpo": "BNPO", "dr_grpo": "Dr. GRPO", "gspo": "GSPO", "gmpo": "GMPO", "cispo": "CISPO", "luspo": "LUSPO", "sapo": "SAPO", "vespo": "VESPO",
    "rloo": "RLOO", "ppo": "PPO: actor", "ppo_value": "PPO: critic", "ppo_joint": "PPO: actor and critic in one loss",
}  # fmt: skip
#: of transformers' heads (``fixtures.heads.TASKS``)
TASKS = {
    "lm": "causal language model", "mlm": "masked language model", "seq2seq": "sequence to sequence", "class": "sequence classification",
    "labels": "multi-label classification", "value": "regression", "tokens": "token classification", "choice": "multiple choice",
    "span": "question answering",
}  # fmt: skip
PARALLEL = {"plain": "one process", "ddp": "DDP", "fsdp2": "FSDP2", "fsdp2_offload": "FSDP2, CPU offload"}
ONE, SEVERAL = "one micro-batch", "accumulation"


class Configuration(NamedTuple):
    """A row of a table. order: by which rows are sorted; first, second: its two lines; short: that of the picture, coarser."""

    order: tuple[Any, ...]
    first: str
    second: str
    short: tuple[tuple[Any, ...], str]


def configuration(row: Row) -> Configuration:
    """That of the row's cell."""
    facts = facts_of(row)
    framework = str(row["cell"]["framework"])
    windows = row["cell"].get("split", {}).get("windows") or [1]
    several = max(windows) > 1
    ranks = int(facts.get("world_size", 1))
    dtype, device = str(facts.get("dtype", "fp32")), str(facts.get("device", "cpu"))
    precision = dtype if device == "cpu" else f"{dtype} on {'GPU' if device == 'cuda' else device}"
    place, engine = _engine(framework, facts)
    batch = SEVERAL if several else ONE
    subject = _subject(framework, row, facts)
    if subject is None:
        order: tuple[Any, ...] = (place, device, dtype != "fp32", dtype, ranks, several)
        second = ", ".join([precision, f"{ranks} rank{'s' * (ranks > 1)}", batch])
        return Configuration(order, engine, second, ((place, several), f"{engine}, {batch}".replace("offload_optimizer, offload_param", "offload_optimizer+param")))
    plain = precision if precision != "fp32" else ""
    order = (*subject[0], place, device, dtype != "fp32", dtype, several)
    return Configuration(order, subject[1], ", ".join(filter(None, [engine, plain, batch])), ((*subject[0], place), f"{subject[1]}, {engine}"))


def _engine(framework: str, facts: Mapping[str, Any]) -> tuple[tuple[Any, ...], str]:
    """(order, words)"""
    if "parallel" in facts:
        kind = str(facts["parallel"])
        return ((*PARALLEL, kind).index(kind),), PARALLEL.get(kind, kind)
    if facts.get("engine", "deepspeed") == "none" or "stage" not in facts:
        return (-1,), "no DeepSpeed" if "engine" in facts else "as it is"
    stage = facts["stage"]
    offloaded = [name for name in ("offload_optimizer", "offload_param") if facts.get(name, "none") != "none"]
    words = ", ".join([f"ZeRO-{stage}", *offloaded])
    return (int(stage) if str(stage).isdigit() else 9, *(name in offloaded for name in ("offload_param", "offload_optimizer"))), words


def _subject(framework: str, row: Row, facts: Mapping[str, Any]) -> tuple[tuple[Any, ...], str] | None:
    """(order, words) of what is trained; None where the configuration is all that there is to say."""
    if framework in ("deepspeed", "torch", "accelerate"):
        return None
    objective = str(row["cell"].get("objective", ""))
    if framework == "transformers":
        task = str(facts.get("task", ""))
        words = TASKS.get(task, task) + (" with routers" if objective == "router" else "")
        adapter = facts.get("adapter", "none") != "none"
        return ([*TASKS, task].index(task), objective == "router", adapter), words + ", PEFT adapter" * adapter
    words = training(objective)
    kinds = list(dict.fromkeys(TRAINING.values()))
    return ((kinds.index(words) if words in kinds else len(kinds)), words), words


def training(objective: str) -> str:
    """What is trained with that objective; one that is not known stands for itself."""
    fits = [name for name in TRAINING if objective == name or objective.startswith(name + "_")]
    return TRAINING[max(fits, key=len)] if fits else objective


_FACTS: dict[str, Mapping[str, Any]] = {}


def facts_of(row: Row) -> Mapping[str, Any]:
    """All knobs of its cell, defaults too; of a cell that this truestep does not know what it says itself."""
    if row["id"] not in _FACTS:
        cell = row["cell"]
        try:
            _FACTS[row["id"]] = Cell.from_json(cell).facts()
        except CellError:
            split = cell.get("split", {})
            _FACTS[row["id"]] = {
                **{name: int(v) if str(v).isdigit() else v for name, v in cell.get("knobs", {}).items()},
                "device": cell.get("device", "cpu"), "world_size": split.get("world_size", 1),
            }  # fmt: skip
    return _FACTS[row["id"]]
