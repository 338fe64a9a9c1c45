"""What the advisories of transformers' Trainer share. ``accepts_items``, ``ignores_items``, ``loss_type`` and ``averages``
are facts that the driver finds by trying the installed model (``fixtures/drivers/_behaviour.py``).
"""

from __future__ import annotations

from typing import Any

#: what the training loop does, whoever computes the loss: TRL's and LLaMA-Factory's trainers are Trainers too
FACTS: dict[str, Any] = {"framework": ("transformers", "trl", "llamafactory")}
#: what happens to the loss of a model, or of a function that was handed over, and not to that of a TRL trainer's own
BY_MODEL: dict[str, Any] = {**FACTS, "compute_loss": {"not": ("trainer",)}}
SEVERAL: dict[str, Any] = {"min": 2}
#: tasks whose micro-batches do not count alike; in an equal batch only the last two do not
UNLIKE: tuple[dict[str, Any], ...] = (
    {**BY_MODEL, "task": ("lm", "tokens"), "batch": {"not": ("equal",)}, "parts": SEVERAL},
    {**BY_MODEL, "task": ("mlm", "seq2seq"), "parts": SEVERAL},
)
DOCS = "https://huggingface.co/docs/transformers"
