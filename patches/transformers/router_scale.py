"""The load-balancing loss of a mixture of experts is added raw in every micro-batch, beside a loss divided by the step's items.

https://github.com/huggingface/transformers/issues/48690: its coefficient counts K times (and W times, where items are
counted over all ranks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..advisory import Advisory
from ..patch import Patch
from ._items import MODULE, RELIES_ON, sources
from ._trainer import SEVERAL

_ROUTER = {"framework": ("transformers", "llamafactory"), "objective": ("router",), "accepts_items": (True,)}

ADVISORY = Advisory(
    id="transformers-48690",
    framework="transformers",
    title="The router's auxiliary loss times the accumulation steps and the world size",
    affected=(("4.46.0", None),),
    trigger=({**_ROUTER, "K": SEVERAL}, {**_ROUTER, "world_size": SEVERAL, "averages": (True,)}),
    signature=("scaled", "loss", "unexplained", "norm", "clipped"),
    links=(
        "https://github.com/huggingface/transformers/issues/48690",
        "https://github.com/huggingface/transformers/pull/48691",
    ),
    cell="transformers-mixtral.lm-W1-K4-objective:router-batch:prompted",
    patch="transformers-48690",
    measured={
        "transformers-mixtral.lm-W1-K4-objective:router-batch:prompted [4.46.0]": 0.925,
        "transformers-mixtral.lm-W1-K4-objective:router-batch:prompted [4.57.6]": 0.925,
        "transformers-mixtral.lm-W1-K4-objective:router-batch:prompted [5.23.0]": 0.713,
    },
    details="Mixtral, coefficient 0.5; the figure is that of the router's own weight. Divide router_aux_loss_coef by gradient_accumulation_steps (times the world size).",
)


def _get_batch_samples(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    self._truestep_window = len(found[0])
    return found


def _compute_loss(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Mapping[str, Any],
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
    **more: Any,
) -> Any:
    import transformers

    coefficient = getattr(self.accelerator.unwrap_model(model), "router_aux_loss_coef", None)
    mine = type(self).compute_loss  # who has a compute_loss of their own has seen to it; LLaMA-Factory's hands everything on
    own = mine is not transformers.Trainer.compute_loss and not mine.__module__.startswith("llamafactory.")
    by_model = self.model_accepts_loss_kwargs and self.compute_loss_func is None and self.label_smoother is None
    if coefficient is None or own or not by_model or num_items_in_batch is None or not model.training:
        return original(self, model, inputs, return_outputs, num_items_in_batch=num_items_in_batch, **more)
    loss, outputs = original(self, model, inputs, True, num_items_in_batch=num_items_in_batch, **more)
    term = outputs.get("aux_loss")
    if term is not None:
        ranks = self.accelerator.num_processes if getattr(self.args, "average_tokens_across_devices", False) else 1
        loss = loss - (ranks - 1 / self._truestep_window) * coefficient * term.to(loss.device)
    return (loss, outputs) if return_outputs else loss


PATCH = Patch(
    advisory=ADVISORY,
    module=MODULE,
    around={"Trainer.compute_loss": _compute_loss, "Trainer.get_batch_samples": _get_batch_samples},
    relies_on=RELIES_ON,
    fingerprints=sources("4.46.2 .. 4.46.3", "5.23.0"),
)
