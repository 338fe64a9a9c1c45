"""The seedable sampler draws its seed in every process by itself: without set_seed ranks shuffle differently.

The ordinary random sampler's generator is synchronised between ranks; ``use_seedable_sampler`` seeds that generator
anew in every pass from the process's own ``torch.initial_seed()``. Every rank then takes its share of another
permutation: some samples are seen twice in a pass and as many not at all. The documentation of DataLoaderConfiguration
advises set_seed for the best results and does not say that sharding rests on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..advisory import Advisory
from ..patch import Patch

ADVISORY = Advisory(
    id="accelerate-seedable-without-seed",
    framework="accelerate",
    title="use_seedable_sampler without set_seed: ranks shuffle apart, samples are lost and counted twice",
    affected=(("1.0.0", None),),
    trigger=({"sampler": ("seedable",), "world_size": {"min": 2}, "dispatch_batches": ("unset",)},),
    signature=("dropped", "double-counted", "re-weighted", "unexplained", "loss"),
    links=("https://huggingface.co/docs/accelerate/package_reference/utilities#accelerate.DataLoaderConfiguration",),
    cell="accelerate-mlp-W2-K2x2e2-sampler:seedable",
    patch="accelerate-seedable-without-seed",
    measured={
        "accelerate-mlp-W2-K2x2e2-sampler:seedable [1.0.1]": 1.32,
        "accelerate-mlp-W2-K2x2e2-sampler:seedable [1.15.0]": 1.32,
        "accelerate-mlp-W2-K2x2e2-sampler:random [1.15.0]": 1.66e-07,
    },
    details="Call accelerate.utils.set_seed in every process, or give data_seed (1.1.0 or newer).",
)


def _prepare_data_loader(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Every rank prepares its loader; not every rank need iterate over it, so the seed is agreed on here."""
    from accelerate.data_loader import SeedableRandomSampler, get_sampler
    from accelerate.state import PartialState
    from accelerate.utils import broadcast_object_list

    loader = original(*args, **kwargs)
    sampler = get_sampler(loader)
    if isinstance(sampler, SeedableRandomSampler) and PartialState().num_processes > 1:
        sampler.initial_seed = broadcast_object_list([sampler.initial_seed])[0]
    return loader


PATCH = Patch(
    advisory=ADVISORY,
    module="accelerate.data_loader",
    around={"prepare_data_loader": _prepare_data_loader},
    relies_on=("prepare_data_loader", "SeedableRandomSampler", "get_sampler"),
    fingerprints={
        "7a14749b91b147517977721ae7872f8c56edd1592797905ce4e405d06507af0d": "1.10.1 .. 1.12.0",
        "8ac4450bc22aba673f1bc5c879f7181f4fcf6e2f236a9f35ad09252553a2522d": "1.14.0 .. 1.15.0",
    },
)
