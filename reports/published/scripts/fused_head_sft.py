"""trl 1.16.0: trl-modernbert_decoder.lm-W1-K1 (truestep-2026-42)
Compares the gradient that the optimizer received with plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
LR, seen = 0.125, []  # of every step: weights, gradient, learning rate
def text(ids):
    return "".join(f"<{i}>" for i in ids)
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
def loss_of(rows):  # (sum over the targets of these samples, number of targets)
    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], True)
    keep = pad_sequence([torch.tensor(row["completion_mask"]) for row in rows], True)[:, 1:].bool()
    logits = plain(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]
    return cross_entropy(logits[keep], ids[:, 1:][keep], reduction="sum"), keep.sum()
def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])
def gradient_of(loss):
    return flat(torch.autograd.grad(loss, ours, retain_graph=True, materialize_grads=True))
def check(what, got, want, limit=1e-4, of=""):
    got, want = (torch.as_tensor(value, dtype=torch.double).detach() for value in (got, want))
    error = float((got - want).norm() / want.norm().clamp(min=1e-3))
    print(f"{what} is off by {error:.3g}{of}" + ("" if error <= limit else "  <- WRONG"))
    return not error <= limit
def watch(optimizer, *_):
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    seen.append((flat(trained), flat(grads), optimizer.param_groups[0]["lr"]))
sys.excepthook = lambda *e: os._exit(print("REFUSED by trl", *e[:2], flush=True) or 2)
torch.manual_seed(1)
config = transformers.ModernBertDecoderConfig(pad_token_id=0, bos_token_id=1, eos_token_id=1, vocab_size=32,
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
    local_attention=4, cls_token_id=1, sep_token_id=1, attn_implementation="eager")
config.update({key: 0.0 for key, value in vars(config).items() if "drop" in key and isinstance(value, float)})
model = transformers.ModernBertDecoderForCausalLM(config)
for p in model.parameters():  # wide weights: losses must differ
    p.data += 0.2 * torch.randn_like(p)
def draw(low, high):
    return torch.randint(3, 32, (int(torch.randint(low, high, ())),)).tolist()
ids = [draw(3, 8) for _ in range(16)]
data = [{"input_ids": x, "completion_mask": [0] * (i % 3) + [1] * (len(x) - (i % 3))} for i, x in enumerate(ids)]
plain = copy.deepcopy(model)  # the reference
ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.5)
optimizer.register_step_pre_hook(watch)
args = trl.SFTConfig(output_dir=folder.name, learning_rate=LR, per_device_train_batch_size=16, num_train_epochs=1,
    lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
    max_grad_norm=0.0, bf16=False, gradient_checkpointing=False, completion_only_loss=True, max_length=None)
trainer = trl.SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list(data), processing_class=tokenizer,
    optimizers=(optimizer, None))
trainer._get_train_sampler = lambda *_: range(len(data))  # in order
trainer.train()
(before, got, rate), log, rows = seen[0], trainer.state.log_history[0], data
parts = [rows[i : i + 16] for i in range(0, len(rows), 16)]  # the micro-batches
torch.nn.utils.vector_to_parameters(before.float(), ours)
total, count = loss_of(rows)  # the whole batch at once
loss, want = total / count, gradient_of(total / count)
each = [gradient_of(loss_of(part)[0] / count) for part in parts]
weights = [round(w, 3) for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
wrong = check("step 1: gradient", got, want, of=" (relative to the whole batch's gradient)")
wrong |= check("the loss logged", log["loss"], loss, 1e-4 + 1e-4 / max(abs(float(loss)), 1e-3))
wrong |= check("the norm logged", log.get("grad_norm") or want.norm(), want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
