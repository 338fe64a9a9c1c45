"""Any combination: cells over all knobs at once, which hold every possible pair of values."""

from truestep.probes.base import probe
from truestep.probes.pairs import pairs

from truestep.plugin import Step


@probe(pairs("deepspeed", 100))
def test_any_combination_takes_the_right_step(step: Step) -> None:
    """Whatever combination of settings DeepSpeed accepts, the step must be the one of the whole batch."""
    step.must_be_right()
