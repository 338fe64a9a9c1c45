"""Seeded faults: bugs put into the real DeepSpeed on purpose, one for each probe, to prove that it can fail.

Each function is called in a worker before its first cell (``--truestep-setup faults:NAME``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def _around(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    setattr(owner, name, wrapped)


def _engine() -> Any:
    from deepspeed.runtime.engine import DeepSpeedEngine

    return DeepSpeedEngine


def offload_drops_the_second_micro_batch() -> None:
    def backward(original: Any, engine: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        offloaded = getattr(engine.optimizer, "cpu_offload", False) or getattr(engine.optimizer, "offload_optimizer", False)
        second = engine.micro_steps % engine.gradient_accumulation_steps() == 1
        return original(engine, loss * 0.0 if offloaded and second else loss, *args, **kwargs)

    _around(_engine(), "backward", backward)


def parameters_on_the_cpu_lose_precision() -> None:
    def forward(original: Any, engine: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(engine, *args, **kwargs)
        return output * 1.0005 if engine.zero_offload_param() else output

    _around(_engine(), "forward", forward)


def never_divided_by_accumulation_steps() -> None:
    _around(_engine(), "backward", lambda original, engine, loss, **_: original(engine, loss, scale_wrt_gas=False))


def gradients_are_not_reduced() -> None:
    _around(_engine(), "buffered_allreduce_fallback", lambda original, engine, *a, **k: None)


def only_the_last_backward_counts() -> None:
    def backward(original: Any, engine: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        return original(engine, loss if engine._is_gradient_accumulation_boundary is not False else loss * 0.0, *args, **kwargs)

    _around(_engine(), "backward", backward)


def backward_scales_twice() -> None:
    _around(_engine(), "backward", lambda original, engine, loss, *a, **k: original(engine, loss / 2, *a, **k))


def clips_at_twice_the_limit() -> None:
    def clipping(original: Any, engine: Any) -> Any:
        return 2 * original(engine)

    _around(_engine(), "gradient_clipping", clipping)
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.clip_grad *= 2

    _around(DeepSpeedZeroOptimizer, "__init__", init)


def norm_is_reported_too_large() -> None:
    _around(_engine(), "get_global_grad_norm", lambda original, engine: (original(engine) or 0) * 1.001)


def clips_at_a_half_unasked() -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.clip_grad = 0.5

    _around(DeepSpeedZeroOptimizer, "__init__", init)


def momentum_fades_between_steps() -> None:
    import torch

    def step(original: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        for state in optimizer.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"] *= 0.9
        return original(optimizer, *args, **kwargs)

    _around(torch.optim.SGD, "step", step)


def loading_forgets_the_optimizer() -> None:
    def load(original: Any, engine: Any, *args: Any, **kwargs: Any) -> Any:
        return original(engine, *args, **{**kwargs, "load_optimizer_states": False})

    _around(_engine(), "load_checkpoint", load)


def loading_leaves_the_module_alone() -> None:
    """Master copy and optimizer state are loaded, but forward goes on with the weights of before."""

    def load(original: Any, engine: Any, *args: Any, **kwargs: Any) -> Any:
        before = [p.detach().clone() for p in engine.module.parameters()]
        answer = original(engine, *args, **kwargs)
        for p, old in zip(engine.module.parameters(), before, strict=True):
            p.data.copy_(old)
        return answer

    _around(_engine(), "load_checkpoint", load)


def learning_rate_is_doubled() -> None:
    import torch

    def init(original: Any, self: Any, parameters: Any, lr: float, **kwargs: Any) -> None:
        original(self, parameters, lr=2 * lr, **kwargs)

    _around(torch.optim.SGD, "__init__", init)


def reading_returns_twice_the_gradient() -> None:
    import deepspeed.utils

    _around(deepspeed.utils, "safe_get_full_grad", lambda original, parameter: 2 * original(parameter))


def everything_is_one_percent_off() -> None:
    _around(_engine(), "backward", lambda original, engine, loss, *a, **k: original(engine, loss * 1.01, *a, **k))


def one_weight_is_off_by_a_hundred_thousandth() -> None:
    """The smallest error that must be caught in float32: 1e-5, in a single parameter."""
    import torch

    def step(original: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        last = [p for group in optimizer.param_groups for p in group["params"]][-1]
        if last.grad is not None:
            last.grad *= 1 + 1e-5
        return original(optimizer, *args, **kwargs)

    _around(torch.optim.SGD, "step", step)
