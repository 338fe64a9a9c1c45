"""PEFT: an adapter's gradient is the one that its paper's formula has, through the same trainer."""

from truestep.probes.base import grid, probe

from truestep.plugin import Step

ADAPTED = ("llama.lm+lora", "llama.lm+rslora", "llama.lm+saved", "gpt2.lm+lora", "gpt2.lm+dora", "llama.lm+dora")


@probe(
    [
        *grid("transformers", model=ADAPTED, windows=(1, 4), batch=("ragged", "prompted")),
        *grid("transformers", model=ADAPTED[:2], windows=4, world_size=2),
        *grid("transformers", model=ADAPTED[0], windows=4, checkpointing="on"),
        *grid("transformers", model=("llama.class+lora", "bert.class+lora"), windows=(1, 4)),
    ]
)
def test_an_adapter_takes_the_right_step(step: Step) -> None:
    """With an adapter the step must be the gradient of the adapted model's loss over the whole batch."""
    step.must_be_right()


@probe(grid("transformers", model="llama.lm+prompt", windows=(1, 4), batch=("ragged", "prompted")))
def test_virtual_tokens_are_counted(step: Step) -> None:
    """Behind virtual tokens the first token of a sequence is a target like any other."""
    step.must_be_right()
