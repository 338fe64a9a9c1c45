"""SFT on demonstrations and RL on rollouts in one optimizer step: two losses, two normalisations, two backwards."""

import torch

from truestep import Term


def sample(i):
    """Every other sample is a demonstration, the rest are rollouts with an advantage."""
    ids = [3 + (7 * i + 5 * t * t) % 29 for t in range(3 + 5 * i % 7)]
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "demo": i % 2 == 0, "advantage": (0.5, -1.0, 1.5)[i % 3]}


def terms(model, batch):
    """For every token the loss and whether it counts: what ``objective`` declares and the step makes use of."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    nll = -logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    trained, demo = batch["labels"][:, 1:] != -100, batch["demo"].bool()[:, None]
    return nll, trained & demo, batch["advantage"][:, None] * nll, trained & ~demo


def objective(model, batch):
    """SFT is the mean over tokens, RL the mean over sequences with half the weight; both over the whole step."""
    sft, demonstrated, rl, rolled_out = terms(model, batch)
    return {"sft": Term(sft, demonstrated, mean="token"), "rl": Term(rl, rolled_out, mean="sequence", weight=0.5)}


def my_step(model, optimizer, micro_batches, count_rl_twice=False):
    tokens = sum(((b["labels"][:, 1:] != -100) & b["demo"].bool()[:, None]).sum() for b in micro_batches)
    rollouts = sum((~b["demo"].bool()).sum() for b in micro_batches)
    optimizer.zero_grad()
    for batch in micro_batches:
        sft, demonstrated, rl, rolled_out = terms(model, batch)
        sft_loss = (sft * demonstrated).sum() / tokens
        rl_loss = 0.5 * ((rl * rolled_out).sum(1) / rolled_out.sum(1).clamp(min=1)).sum() / rollouts
        if count_rl_twice:  # "the total for the log", and the wrong one of the two goes backward
            sft_loss = sft_loss + rl_loss
        sft_loss.backward(retain_graph=True)
        rl_loss.backward()
    optimizer.step()


def twice(model, optimizer, micro_batches):
    my_step(model, optimizer, micro_batches, count_rl_twice=True)


def test_my_step(check_step):
    check_step(my_step, objective=objective, samples=sample, model="tiny.lm").must_be_right()


def test_an_rl_term_that_counts_twice_is_named(check_step):
    verdict = check_step(twice, objective=objective, samples=sample, model="tiny.lm")
    assert verdict.diagnosis.words == "the rl term is counted twice"
    torch.testing.assert_close(verdict.diagnosis.samples, (1.0, 2.0) * 8, atol=1e-4, rtol=0)
