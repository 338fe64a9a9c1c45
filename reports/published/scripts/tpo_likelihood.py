"""trl 1.16.0: trl-llama.lm-W1-K4-objective:tpo (truestep-2026-71)
Compares the gradient that the optimizer received with plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
import torch, transformers, trl.experimental.tpo
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence
LR, ALPHA, seen = 0.125, 0.5, []  # of every step: weights, gradient, learning rate
def text(ids):
    return "".join(f"<{i}>" for i in ids)
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
def logps(net, prompts, completions):  # of every token, and which of them belong to the completion
    ids = pad_sequence([torch.tensor([*p, *c, 1]) for p, c in zip(prompts, completions)], True)
    logits = net(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]
    begin = torch.tensor([len(p) for p in prompts])[:, None]
    keep = (ids[:, 1:] != 0) & (torch.arange(1, ids.shape[1]) >= begin)
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0], keep
def loss_of(rows):  # [(sum of a mean, number of its terms), ...]: of the pairs, and of the gold completions' tokens
    prompts, *three = ([row[key] for row in rows] for key in ("prompt", "chosen", "rejected", "reference"))
    (x, w), (y, l), (z, g) = (logps(plain, prompts, completions) for completions in three)
    losses = -logsigmoid(0.25 * ((x * w).sum(1) - (y * l).sum(1)))
    return (losses.sum(), len(rows)), (-ALPHA * (z * g).sum(), g.sum())
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
config = transformers.LlamaConfig(pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24,
    num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, num_key_value_heads=2,
    attn_implementation="eager")
model = transformers.LlamaForCausalLM(config)
for p in model.parameters():  # wide weights: losses must differ
    p.data += 0.25 * torch.randn_like(p)
def draw(low, high):
    return torch.randint(3, 32, (int(torch.randint(low, high, ())),)).tolist()
data = [{"prompt": draw(1, 4), "chosen": draw(1, 7), "rejected": draw(1, 7), "reference": draw(1, 7)} for _ in range(16)]
texts = [{key: text(v) if isinstance(v, list) else v for key, v in row.items()} for row in data]
plain = copy.deepcopy(model)  # the reference
ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.5)
optimizer.register_step_pre_hook(watch)
args = trl.experimental.tpo.TPOConfig(output_dir=folder.name, learning_rate=LR, per_device_train_batch_size=4,
    gradient_accumulation_steps=4, num_train_epochs=1, lr_scheduler_type="constant", logging_steps=1,
    save_strategy="no", report_to="none", use_cpu=True, max_grad_norm=0.0, bf16=False, gradient_checkpointing=False,
    max_length=32, beta=0.25, tpo_alpha=ALPHA)
trainer = trl.experimental.tpo.TPOTrainer(model=model, args=args, train_dataset=Dataset.from_list(texts),
    processing_class=tokenizer, optimizers=(optimizer, None))
trainer._get_train_sampler = lambda *_: range(len(data))  # in order
trainer.train()
(before, got, rate), log, rows = seen[0], trainer.state.log_history[0], data
parts = [rows[i : i + 4] for i in range(0, len(rows), 4)]  # the micro-batches
torch.nn.utils.vector_to_parameters(before.float(), ours)
terms = loss_of(rows)  # the whole batch at once: a sum of means
loss, want = sum(t / n for t, n in terms), gradient_of(sum(t / n for t, n in terms))
each = [gradient_of(sum(t / n for (t, _), (_, n) in zip(loss_of(part), terms))) for part in parts]
weights = [round(w, 3) for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
wrong = check("step 1: gradient", got, want, of=" (relative to the whole batch's gradient)")
wrong |= check("the loss logged", log["loss"], loss, 1e-4 + 1e-4 / max(abs(float(loss)), 1e-3))
wrong |= check("the norm logged", log.get("grad_norm") or want.norm(), want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
