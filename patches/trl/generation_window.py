"""The token count that dapo, cispo and vespo divide by is that of a generation batch, not of an accumulation window.

``num_items_in_batch`` is counted when completions are generated. Where ``steps_per_generation`` differs from
``gradient_accumulation_steps`` the step is scaled by their ratio (https://github.com/huggingface/trl/issues/5619). Since 1.9.1
(https://github.com/huggingface/trl/pull/6024) the count is multiplied by that ratio: right only where every
window has as many tokens as the mean of its generation batch. The documentation of ``loss_type`` says the number
of active tokens in the global accumulated batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

#: objectives that are normalised by that count
COUNTED = ("dapo", "dapo_fresh", "dapo_cut", "dapo_rewards", "dapo_kl_corrected", "dapo_router", "cispo", "vespo")

SCALED = Advisory(
    id="trl-5619",
    framework="trl",
    title="GRPO's dapo, cispo and vespo divide by the tokens of a generation batch instead of an accumulation window",
    affected=(("0.22.0", "1.9.1"),),
    trigger=({"objective": COUNTED, "generation": ("double",)},),
    signature=("scaled", "re-weighted", "loss"),
    links=("https://github.com/huggingface/trl/issues/5619", "https://github.com/huggingface/trl/pull/6024"),
    cell="trl-neox.lm-W1-K4x2-objective:dapo-generation:double",
    patch="trl-5619",
    measured={
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [0.25.1]": 0.5,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [1.9.0]": 0.5,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:double [1.9.1]": 4.7e-07,
    },
    details="x 2 where a window has two generation batches, x 1/2 where a generation batch has two windows.",
)

UNEVEN = Advisory(
    id="truestep-2026-41",
    framework="trl",
    title="GRPO's dapo, cispo and vespo estimate the tokens of an accumulation window from its generation batch",
    affected=(("1.9.1", None),),
    # the first six windows of a cell have, two by two, as many tokens as each other
    trigger=({"objective": COUNTED, "generation": ("double",), "steps": {"min": 7}},),
    signature=("re-weighted", "scaled", "loss"),
    links=(
        "https://github.com/huggingface/trl/blob/v1.16.0/trl/trainer/grpo_trainer.py",
        "https://huggingface.co/docs/trl/v1.16.0/en/grpo_trainer",
    ),
    cell="trl-neox.lm-W1-K4x8-objective:dapo-generation:double",
    patch="truestep-2026-41",
    measured={
        "trl-neox.lm-W1-K4x8-objective:dapo-generation:double [1.16.0]": 0.0345,
        "trl-neox.lm-W1-K4x2-objective:dapo [1.16.0]": 6.3e-07,
    },
    details="What is left of trl-5619: a mean of means over generation batches. Right with steps_per_generation unset.",
)

#: no cure: the second generation of the window is not there yet when the first is trained on
HALVES = replace(
    UNEVEN,
    id="truestep-2026-41-half",
    title="GRPO's dapo, cispo and vespo estimate the tokens of an accumulation window from each of its generation batches",
    trigger=({"objective": COUNTED, "generation": ("half",)},),
    cell="trl-neox.lm-W1-K4x2-objective:dapo-generation:half",
    patch=None,
    measured={
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.9.1]": 0.0823,
        "trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.16.0]": 0.0823,
    },
)

SCALED_HALVES = replace(
    SCALED,
    id="trl-5619-half",
    title="GRPO's dapo, cispo and vespo divide by the tokens of one of a window's generation batches",
    trigger=HALVES.trigger,
    cell=HALVES.cell,
    patch=None,
    measured={"trl-neox.lm-W1-K4x2-objective:dapo-generation:half [1.9.0]": 1.03},
)

ADVISORY = (SCALED, SCALED_HALVES, UNEVEN, HALVES)


def _counting(rescales: bool) -> Callable[..., Any]:
    """rescales : whether TRL multiplies the count by the window's share of a generation batch"""

    def prepare_inputs(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
        """The count becomes such that what TRL makes of it is the number of tokens of the window, over all ranks."""
        inputs = original(self, *args, **kwargs)
        window, generation = self.args.gradient_accumulation_steps, self.args.steps_per_generation
        # the micro-batch's place in its window; below 0 after a short window or a resumed run, where windows no longer
        # begin with a generation
        place = self._step - self.state.global_step * window
        whole = generation > window and generation % window == 0 and self.current_gradient_accumulation_steps == window
        if not self.model.training or not whole or not 0 <= place < window or self._step % window != place:
            return inputs
        if place == 0 or not hasattr(self, "_truestep_tokens"):
            first = self._step % generation - place
            tokens = sum(_trained(one) for one in self._buffered_inputs[first : first + window])
            self._truestep_tokens = self.accelerator.gather(tokens).sum()
        return {**inputs, "num_items_in_batch": self._truestep_tokens * (generation // window if rescales else 1)}

    return prepare_inputs


def _trained(inputs: dict[str, Any]) -> Any:
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).sum()


_RELIES_ON = ("GRPOTrainer._prepare_inputs", "GRPOTrainer._compute_loss", "GRPOTrainer.training_step")
PATCH = (
    Patch(
        advisory=SCALED,
        module="trl.trainer.grpo_trainer",
        around={"GRPOTrainer._prepare_inputs": _counting(rescales=False)},
        relies_on=_RELIES_ON,
        fingerprints={
            "833c90535d1f94f6e4e1132ee92078e46ef3926e8b8556cadd328eeb779ff438": "0.29.1",
        },
    ),
    Patch(
        advisory=UNEVEN,
        module="trl.trainer.grpo_trainer",
        around={"GRPOTrainer._prepare_inputs": _counting(rescales=True)},
        relies_on=_RELIES_ON,
        fingerprints={"fa54e850ae06bee72c8f1cf40df89e43a5c8d2b4c35a3cba7d571432fdd5a647": "1.16.0"},
    ),
)
