"""A plain loop: gradients add up over the micro-batches of a step, and the loss is the mean over all of its tokens."""


def my_step(model, optimizer, micro_batches):
    tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in micro_batches)
    optimizer.zero_grad()
    for batch in micro_batches:
        model(**batch, num_items_in_batch=tokens).loss.backward()
    optimizer.step()


def mean_of_means(model, optimizer, micro_batches):
    """What most loops do. Micro-batches with few tokens weigh too much."""
    optimizer.zero_grad()
    for batch in micro_batches:
        loss = model(**batch).loss / len(micro_batches)
        loss.backward()
    optimizer.step()


def only_the_last(model, optimizer, micro_batches):
    """``zero_grad`` stands one line too far to the right."""
    tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in micro_batches)
    for batch in micro_batches:
        optimizer.zero_grad()
        model(**batch, num_items_in_batch=tokens).loss.backward()
    optimizer.step()


def test_my_step(check_step):
    check_step(my_step, objective="token_mean", model="tiny.lm").must_be_right()


def test_a_mean_of_means_is_seen(check_step):
    verdict = check_step(mean_of_means, objective="token_mean", model="tiny.lm")
    assert verdict.verdict == "wrong" and verdict.diagnosis.kinds == ("re-weighted",)
    assert "every micro-batch was averaged over its own tokens" in str(verdict)


def test_a_zero_grad_within_the_loop_is_seen(check_step):
    verdict = check_step(only_the_last, objective="token_mean", model="tiny.lm")
    assert "micro-batches 1 to 3 of 4 have weight 0" in str(verdict)
    assert [round(w, 4) for w in verdict.diagnosis.weights[0]] == [0, 0, 0, 1]
