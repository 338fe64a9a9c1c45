"""What the advisories of transformers' Trainer share. ``accepts_items``, ``ignores_items``, ``loss_type`` and ``averages``
are facts that the driver finds by trying the installed model (``fixtures/drivers/_behaviour.py``).
"""

from __future__ import annotations

from typing import Any

FACTS: dict[str, Any] = {"framework": ("transformers",)}
SEVERAL: dict[str, Any] = {"min": 2}
#: tasks whose micro-batches do not count alike; in an equal batch only the last two do not
UNLIKE: tuple[dict[str, Any], ...] = (
    {**FACTS, "task": ("lm", "tokens"), "batch": {"not": ("equal",)}, "parts": SEVERAL},
    {**FACTS, "task": ("mlm", "seq2seq"), "parts": SEVERAL},
)
DOCS = "https://huggingface.co/docs/transformers"
