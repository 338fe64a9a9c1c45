"""transformers' Trainer: the step is that of the whole batch, however it is cut, padded, computed or reported."""

from functools import partial
from typing import Any

from truestep.probes.base import grid, probe

from truestep.plugin import Step

trainer = partial(grid, framework="transformers")
CAUSAL: dict[str, Any] = {"model": "llama.lm", "batch": "prompted"}
LAST: dict[str, Any] = {"size": 4, "windows": ([4, 4, 2], [4, 1])}


@probe(
    [
        *trainer(model="llama.lm", batch=("ragged", "prompted", "equal"), windows=(1, 2, 4, 8)),
        *trainer(model=("gpt2.lm", "bert.mlm", "bert.class", "llama.class", "t5.seq2seq"), windows=(1, 4)),
    ]
)
def test_accumulation_changes_nothing(step: Step) -> None:
    """Accumulating over micro-batches must not change the step."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, world_size=2, windows=(1, 4), average_tokens=("unset", "true", "false")),
        *trainer(
            model=("bert.mlm", "bert.class"), world_size=2, windows=(1, 2), average_tokens=("unset", "false")
        ),
    ]
)
def test_ranks_change_nothing(step: Step) -> None:
    """Dealing the batch out to two ranks must not change the step."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, **LAST),
        *trainer(**CAUSAL, size=4, windows=([4, 2, 4, 2], [3, 1, 3, 1]), epochs=2),
        *trainer(**CAUSAL, size=2, windows=[4, 2], world_size=2),
        *trainer(**CAUSAL, size=4, windows=[4, 2, 4, 2], epochs=2, data="iterable"),
        *trainer(model=("bert.mlm", "bert.class"), **LAST),
        *trainer(**CAUSAL, **LAST, compute_loss="func"),
    ]
)
def test_a_short_last_window_counts_as_it_is(step: Step) -> None:
    """The last window of an epoch, with fewer micro-batches than the others, must be a step of its own and divided by its own size."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, windows=([2, 2, 2, 2], [1, 1, 1, 1]), epochs=(2, 4)),
        *trainer(**CAUSAL, windows=([2, 2], [1, 1]), epochs=2, optimizer="adam"),
    ]
)
def test_every_epoch_is_like_the_first(step: Step) -> None:
    """Samples that come again in a later epoch must make a step as they did before."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, windows=(1, 4), checkpointing="on"),
        *trainer(**CAUSAL, windows=(1, 4), padding=("left", "far")),
        *trainer(**CAUSAL, windows=(1, 4), attention="sdpa"),
        *trainer(model="llama.lm", batch="padded", windows=(1, 4)),
        *trainer(model="gpt2.lm", batch="prompted", windows=2, padding="far", attention=("eager", "sdpa")),
    ]
)
def test_ways_to_compute_change_nothing(step: Step) -> None:
    """Recomputing activations, padding and the implementation of attention must not change the step."""
    step.must_be_right()


@probe(
    [
        *trainer(model="llama.lm", batch=("ragged", "prompted"), windows=(1, 4), compute_loss="func"),
        *trainer(**CAUSAL, windows=(1, 4), compute_loss=("override", "flagged")),
        *trainer(**CAUSAL, windows=2, world_size=2, compute_loss=("func", "override", "flagged")),
    ]
)
def test_a_loss_of_ones_own_is_scaled_as_documented(step: Step) -> None:
    """A loss given by the user must weigh in as the mean over the whole batch that it is meant to be."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, windows=(1, 4, [4, 4]), clipping=("tight", "loose", "unset")),
        *trainer(**CAUSAL, windows=2, world_size=2, clipping=("tight", "unset")),
        *trainer(model="bert.class", windows=(1, 4), clipping=("tight", "loose")),
    ]
)
def test_clipping_and_its_norm_are_right(step: Step) -> None:
    """The gradient must be clipped by the norm of the whole accumulated gradient, at 1.0 where nothing is said, and that norm logged."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, windows=([1, 1, 1, 1], [4, 4, 4]), schedule="linear", optimizer=("sgd", "adam")),
        *trainer(**CAUSAL, windows=[2, 2, 2], world_size=2, schedule="linear"),
        *trainer(**CAUSAL, windows=[4, 2, 4, 2], size=4, epochs=2, schedule="linear"),
    ]
)
def test_the_schedule_counts_optimizer_steps(step: Step) -> None:
    """The learning rate must follow the optimizer steps, not the micro-batches nor the ranks."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, objective="smoothed", windows=(1, 2, 4, 8)),
        *trainer(model=("gpt2.lm", "bert.mlm", "bert.tokens"), objective="smoothed", batch="prompted", windows=(1, 4)),
        *trainer(**CAUSAL, objective="smoothed", windows=2, world_size=2),
    ]
)
def test_smoothed_labels_are_a_mean_over_the_batch(step: Step) -> None:
    """Label smoothing must be a mean over the tokens of the whole batch, like the loss without it."""
    step.must_be_right()


@probe(
    [
        *trainer(model="mixtral.lm", objective="router", batch="prompted", windows=(1, 2, 4)),
        *trainer(model="mixtral.lm", objective="router", batch="prompted", windows=(1, 2), world_size=2),
    ]
)
def test_the_router_loss_keeps_its_coefficient(step: Step) -> None:
    """The load-balancing loss of a mixture of experts must weigh what its coefficient says, however the batch is cut."""
    step.must_be_right()


@probe(
    [
        *trainer(**CAUSAL, windows=([1, 1, 1], [4, 4, 4]), checkpoint="reload", optimizer=("sgd", "adam")),
        *trainer(**CAUSAL, windows=[2, 2, 2], checkpoint="reload", schedule="linear"),
        *trainer(model="gpt2.lm", batch="prompted", windows=[1, 1, 1], checkpoint="reload"),
    ]
)
def test_resuming_changes_nothing(step: Step) -> None:
    """Saving and resuming from the checkpoint must not change the steps that follow."""
    step.must_be_right()


@probe(
    [
        *trainer(model=("llama.lm", "bert.class", "bert.mlm", "t5.seq2seq"), evaluate=("1", "3", "16")),
        *trainer(model="llama.lm", batch="equal", evaluate=("3", "16")),
        *trainer(model=("llama.lm", "bert.class"), batch="equal", world_size=2, evaluate=("3", "16")),
    ]
)
def test_an_evaluation_tells_the_loss_of_its_data(step: Step) -> None:
    """The loss of an evaluation must be that of its data set, however it is cut into batches and dealt out to ranks."""
    step.must_be_right()
