"""An accelerate loop: ``accumulate`` decides when the optimizer steps, and ``backward`` divides by the micro-batches of a step."""

from accelerate import Accelerator


def my_step(model, optimizer, micro_batches):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=len(micro_batches))
    model, optimizer = accelerator.prepare(model, optimizer)
    tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in micro_batches)
    for batch in micro_batches:
        with accelerator.accumulate(model):
            loss = model(**batch, num_items_in_batch=tokens).loss
            accelerator.backward(loss * len(micro_batches))  # it divides by their number
            optimizer.step()
            optimizer.zero_grad()


def divided_twice(model, optimizer, micro_batches):
    """The loss is the micro-batch's share of the whole step already, and accelerate divides it once more."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=len(micro_batches))
    model, optimizer = accelerator.prepare(model, optimizer)
    tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in micro_batches)
    for batch in micro_batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch, num_items_in_batch=tokens).loss)
            optimizer.step()
            optimizer.zero_grad()


def test_my_step(check_step):
    check_step(my_step, objective="token_mean", model="tiny.lm", optimizer="adamw").must_be_right()


def test_a_second_division_is_seen(check_step):
    verdict = check_step(divided_twice, objective="token_mean", model="tiny.lm", optimizer="adamw")
    assert verdict.verdict == "wrong" and verdict.diagnosis.kinds == ("scaled",)
    assert "everything x 1/4 (1 / (K, the micro-batches of a step))" in str(verdict)
    assert [round(w, 4) for w in verdict.diagnosis.weights[0]] == [0.25] * 4
