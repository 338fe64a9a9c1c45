"""trl 1.16.0: trl-llama.lm-W1-K4x2-objective:dapo-generation:half
Compares the gradient that the optimizer received with plain PyTorch's of the whole batch.
Run: python this_file.py (trl, transformers, accelerate, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
import torch, transformers, trl
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
LR, seen = 0.125, []  # of every step: weights, gradient, learning rate
def text(ids):
    return "".join(f"<{i}>" for i in ids)
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
def loss_of(rows):  # (sum over these micro-batches, tokens)
    total = count = 0
    for x in rows:
        ids, mask = (torch.cat([x[f"prompt_{name}"], x[f"completion_{name}"]], 1) for name in ("ids", "mask"))
        keep, gain = x["completion_mask"], x["advantages"].reshape(-1, 1)
        logits = plain(input_ids=ids, attention_mask=mask).logits[:, -1 - keep.shape[1] : -1]
        each = logits.log_softmax(-1).gather(-1, x["completion_ids"][..., None])[..., 0]
        ratio = (each - x.get("old_per_token_logps", each.detach())).exp()
        losses = -torch.min(ratio * gain, ratio.clamp(0.8, 1.28) * gain) * keep
        total, count = total + losses.sum(), count + keep.sum()
    return total, count
class Recorded(trl.GRPOTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        with torch.no_grad():  # what generated is another policy: ratios are not 1
            inputs["old_per_token_logps"] = torch.sin(7.0 * inputs["completion_ids"]) / 2 - 3
        data.append(dict(inputs))  # one after the other: the micro-batches
        return super().compute_loss(model, inputs, *args, **kwargs)
def generate(input_ids, **_):  # in place of the model's: completions that are made up
    made = [torch.randint(3, 32, (n,)).tolist() + [1] * (n < 6) for n in torch.randint(1, 7, (len(input_ids),)).tolist()]
    return torch.cat([input_ids, pad_sequence(list(map(torch.tensor, made)), True)], 1)
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
data, texts = [], [{"prompt": text(draw(1, 4))} for _ in range(32)]
model.generate = generate
plain = copy.deepcopy(model)  # the reference
ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.5)
optimizer.register_step_pre_hook(watch)
args = trl.GRPOConfig(output_dir=folder.name, learning_rate=LR, per_device_train_batch_size=4,
    gradient_accumulation_steps=4, num_train_epochs=1, lr_scheduler_type="constant", logging_steps=1,
    save_strategy="no", use_cpu=True, max_grad_norm=0.0, bf16=False, use_bias_correction_kl=False,
    max_completion_length=6, num_generations=2, steps_per_generation=2, epsilon_high=0.28, max_steps=2,
    gradient_checkpointing=False)
trainer = Recorded(model=model, args=args, train_dataset=Dataset.from_list(texts), processing_class=tokenizer,
    optimizers=(optimizer, None), reward_funcs=lambda completions, **_: torch.randn(len(completions)).tolist())
trainer.train()
logs = [log for log in trainer.state.log_history if "loss" in log]
wrong = check("the number of optimizer steps", len(seen), 2, 0)
for step, ((before, got, rate), log) in enumerate(zip(seen, logs)):
    rows = data[step * 4 :][:4]
    parts = [rows[i : i + 1] for i in range(0, len(rows), 1)]  # the micro-batches
    torch.nn.utils.vector_to_parameters(before.float(), ours)
    total, count = loss_of(rows)  # the whole batch at once
    loss, want = total / count, gradient_of(total / count)
    each = [gradient_of(loss_of(part)[0] / count) for part in parts]
    weights = [round(w, 3) for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
    print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
    wrong |= check(f"step {step + 1}: gradient", got, want, of=" (relative to the whole batch's gradient)")
    wrong |= check("the loss logged", log["loss"], loss, 1e-4 + 1e-4 / max(abs(float(loss)), 1e-3))
    wrong |= check("the norm logged", log.get("grad_norm") or want.norm(), want.norm())
print("WRONG" if wrong else "RIGHT", "with trl", trl.__version__)
sys.exit(int(wrong))
