"""What the cures of the Trainer share: how a model uses its labels, found by trying, and how many items there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

MODULE = "transformers.trainer"
RELIES_ON = ("Trainer.compute_loss", "Trainer.training_step", "Trainer.get_batch_samples", "Trainer._get_num_items_in_batch")

#: digest of the source of RELIES_ON -> the releases that have it, oldest first
_SOURCES = (
    ("8c1e011a34c1a392ee91ae3c79a6efded063af190b18c110829517f8008b2693", "4.46.2 .. 4.46.3"),
    ("aca3ce98de9b3bfb5257d75e6fccbbf73ac0b5b1a8ae34771fbf5b22fe4aa2c8", "4.47.1"),
    ("e49977bf1c722e5af34cadb473c614283069199f828f6b6511e1e607948317fb", "4.48.1 .. 4.48.3"),
    ("a906d986de7dbe390c89eee76f19d2b5e673583eff65aa6bb9bec0e12f3d59cb", "4.49.0"),
    ("52be1a8dc7240a0a72495e5687f0ccda08a2b070aee49d9d5d87ce137db951ad", "4.50.0 .. 4.50.3"),
    ("714526309ac16e85cd9cba643681f65497f93fbaa7a2ac827d91e236df90e7b2", "4.51.0 .. 4.51.3"),
    ("b75aacf0c7d1d477b3de8695f3a00d7a9208084edb2eb795d24432fcfda54feb", "4.52.1 .. 4.52.4"),
    ("5b28596d7f6a0073ae9f0458309db7e42e3836c23aa55e0148302ebb3e6503a9", "4.53.0 .. 4.53.3"),
    ("9f39c9d6e3820c1905449f5b6ce2a3252cbc3324f876758dc1c96a582a20f68c", "4.54.0 .. 4.54.1"),
    ("5c507e514e43c5f91190778a00c413dfd565db2bc8f8721904de5d8aecad2253", "4.55.0 .. 4.55.4"),
    ("3c1bcb8bf29cedca86e1954d91395689ef53608f12de2f6db60504ec8deb740a", "4.56.2"),
    ("2e761f59a7dc1d76560ea438589a5c19cc9e133bce15eddb6feb6c46a74ddc55", "4.57.6"),
    ("718e9ce1e93aaab667480d8b6ce152dbfd1e625a9dcc35a2b7b3ffc11d32c650", "5.0.0 .. 5.1.0"),
    ("b1c4341d69f5b714fdfb978f9797ac26aa8607b0b3b319a78831b2b1cd1674dd", "5.2.0 .. 5.9.0"),
    ("fe28bbf416ac2a226305e52bc06488992bbb51900b9ecf223b3efe4dcbff9425", "5.10.1 .. 5.13.1"),
    ("299832caf857c54de65b8e28aa7d88e4e23cdb49ddb9a0a0ee3557b6cc2ea47e", "5.14.0 .. 5.14.1"),
    ("5ca0372ece4650b234452df035f602c2dc1416d5743772b693a8b1b372c91599", "5.15.0 .. 5.18.0"),
    ("8728e25b3900fe39819bf8eb1591bc42e905ba500719448839abc0651f9d2b81", "5.19.0 .. 5.22.2"),
    ("193f5689ee31b8f6dd01dd332f84fa1173d5b83ea840aced407692c45ac8d2f4", "5.23.0"),
)


def sources(first: str, last: str) -> dict[str, str]:
    """The fingerprints of a patch that was run from the releases ``first`` to ``last``, as they stand in the table."""
    names = [releases for _, releases in _SOURCES]
    return dict(_SOURCES[names.index(first) : names.index(last) + 1])


_known: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()


def ignores_items(trainer: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether the loss of the model is the same whatever the number of items."""
    return _tried(trainer, inputs, "ignores", lambda loss: bool(loss(num_items_in_batch=1) == loss(num_items_in_batch=10**6)))


def skips_first(trainer: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether the first label of a sequence is no target: it makes no difference to the loss of a causal model."""
    labels = inputs["labels"]
    if labels.dim() != 2 or labels.shape[1] < 2 or labels.is_floating_point() or "shift_labels" in inputs:
        return False

    def same(loss: Any) -> bool:
        # a label that counts as an item must not weigh in: the number of items is given, so that it stays what it is
        given = {"num_items_in_batch": 1} if trainer.model_accepts_loss_kwargs else {}
        one, other = labels.clone(), labels.clone()
        one[:, 0], other[:, 0] = 0, 1
        return bool(loss(labels=one, **given) == loss(labels=other, **given))

    return _tried(trainer, inputs, "skips", same)


def _tried(trainer: Any, inputs: Mapping[str, Any], what: str, ask: Any) -> bool:
    """The answer for this model, asked once: without gradients, without dropout, and without drawing a random number."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    answers = _known.setdefault(model, {})
    if what not in answers:

        def loss(**more: Any) -> Any:
            return model(**{**inputs, **more})["loss"]

        training, devices = model.training, [torch.cuda.current_device()] if torch.cuda.is_available() else []
        model.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices), trainer.compute_loss_context_manager():
                answers[what] = ask(loss)
        finally:
            model.train(training)
    return answers[what]


def counted(trainer: Any, inputs: Mapping[str, Any]) -> Any:
    """The targets of a micro-batch."""
    labels = inputs["labels"]
    return (labels[..., 1:] if skips_first(trainer, inputs) else labels).ne(-100).sum()


def recounted(trainer: Any, batches: list[Any], items: Any) -> Any:
    """The targets of a step, over all ranks where the Trainer counts so, as the kind of number that ``items`` is."""
    skips_first(trainer, trainer._prepare_inputs(batches[0]))  # where the model is
    found = sum(counted(trainer, batch) for batch in batches)
    if trainer.args.world_size > 1 and getattr(trainer.args, "average_tokens_across_devices", False):
        found = trainer.accelerator.gather(found.to(trainer.args.device)).sum()
    return found.to(items.device) if hasattr(items, "device") else int(found)


def by_items(trainer: Any, inputs: Mapping[str, Any], items: Any, result: Any, returns: bool) -> Any:
    """A mean over the micro-batch turned into its share of the mean over the step: times its items by all items."""
    share = counted(trainer, inputs) / items
    return (result[0] * share, *result[1:]) if returns else result * share
