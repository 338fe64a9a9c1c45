"""A subclass of transformers' ``Trainer`` with a ``compute_loss`` of its own. It is handed the micro-batches as they are."""

import tempfile

import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments


class MyTrainer(Trainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)  # collated already

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")[:, 1:]
        outputs = model(**inputs)
        total = F.cross_entropy(outputs.logits[:, :-1].transpose(1, 2), labels, reduction="sum")
        loss = total / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


class MeanTrainer(MyTrainer):
    """The usual override: the mean of this micro-batch. The Trainer has divided by the tokens of the step elsewhere, so nobody divides."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")[:, 1:]
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits[:, :-1].transpose(1, 2), labels)
        return (loss, outputs) if return_outputs else loss


def step_of(trainer_class):
    def step(model, optimizer, micro_batches):
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, max_steps=1, gradient_accumulation_steps=len(micro_batches), max_grad_norm=0.0,
                use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1,
            )  # fmt: skip
            schedule = LambdaLR(optimizer, lambda _: 1.0)
            trainer = trainer_class(model, arguments, train_dataset=micro_batches, optimizers=(optimizer, schedule))
            trainer.train()
            return trainer.state.log_history[0]["loss"]  # the loss that it logs is checked too

    return step


def test_my_trainer(check_step):
    check_step(step_of(MyTrainer), objective="token_mean").must_be_right()


def test_the_mean_of_a_micro_batch_is_seen(check_step):
    verdict = check_step(step_of(MeanTrainer), objective="token_mean")
    assert verdict.verdict == "wrong" and {"re-weighted", "scaled"} <= set(verdict.diagnosis.kinds)
    assert "a mean of means" in str(verdict) and "everything x 4" in str(verdict)
