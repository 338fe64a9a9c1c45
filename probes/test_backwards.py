"""Several backwards add up, whichever way the accumulation window is told to the engine."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step


@probe(
    grid(stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(2, 3, 4, [3, 1, 4]),
         accumulate=("boundary", "boundary_k", "unmanaged", "no_sync", "coalesce"))
)  # fmt: skip
def test_several_backwards_add_up(step: Step) -> None:
    """Several backwards before one step must add up to the gradient of the whole batch."""
    step.must_be_right()


@probe(grid(stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(1, 4), backward=("unscaled", "torch"),
            returns=("loss", "output")))  # fmt: skip
def test_every_way_to_call_backward(step: Step) -> None:
    """engine.backward(scale_wrt_gas=False) and loss.backward() must scale the gradient as documented."""
    step.must_be_right()


@probe(grid(stage=(0, 1, 2, 3), offload_optimizer=("none", "cpu"), windows=(1, 4), backward=("engine", "unscaled", "torch"),
            returns="both"))  # fmt: skip
def test_what_is_returned_beside_the_loss(step: Step) -> None:
    """A loss that forward returns beside the logits it was computed from must be scaled once."""
    step.must_be_right()
