"""transformers 5.23.0: transformers-llama.lm-W1-K4-average_tokens:false-engine:deepspeed
Compares the gradient that the optimizer received with plain PyTorch's of the whole batch.
Run: python this_file.py (transformers, accelerate, torch, deepspeed; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
rank = 0
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT="0")
import deepspeed, torch, transformers
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
LR, weights = 0.5, []  # of every step: the weights after it
ZERO = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
        "zero_optimization": {"stage": 0, "reduce_bucket_size": 100000, "allgather_bucket_size": 100000},
        "zero_allow_untested_optimizer": True}
def collate(rows):
    batch = {key: pad_sequence([torch.tensor(row[key]) for row in rows], True, fill)
             for key, fill in (("input_ids", 0), ("labels", -100))}
    return batch | {"attention_mask": (batch["input_ids"] != 0).long()}
def loss_of(rows):  # (sum over the targets of these samples, number of targets)
    batch = collate(rows)
    labels = batch.pop("labels")
    logits, labels = plain(**batch).logits[:, :-1], labels[:, 1:]
    total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total, (labels != -100).sum()
class Own(transformers.Trainer):
    def create_optimizer(self, *_):
        self.optimizer = torch.optim.SGD(trained, lr=LR)  # its update is the gradient
        return self.optimizer
def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])
def gradient_of(loss):
    return flat(torch.autograd.grad(loss, ours, retain_graph=True, materialize_grads=True))
def check(what, got, want, limit=1e-4, of=""):
    got, want = (torch.as_tensor(value, dtype=torch.double).detach() for value in (got, want))
    error = float((got - want).norm() / want.norm().clamp(min=1e-3))
    print(f"{what} is off by {error:.3g}{of}" + ("" if error <= limit else "  <- WRONG"))
    return not error <= limit
class Watch(transformers.TrainerCallback):
    def on_step_end(self, *_, **__):
        weights.append(flat(trained))
sys.excepthook = lambda *e: os._exit(print("REFUSED by transformers", *e[:2], flush=True) or 2)
torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=1)
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
deepspeed.init_distributed("gloo", verbose=False)
torch.manual_seed(1)
config = transformers.LlamaConfig(pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24,
    num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, num_key_value_heads=2,
    attn_implementation="eager")
model = transformers.LlamaForCausalLM(config)
for p in model.parameters():  # wide weights: losses must differ
    p.data += 0.25 * torch.randn_like(p)
ids = [torch.randint(3, 32, (int(n),)).tolist() for n in torch.randint(3, 8, (16,))]
data = [{"input_ids": x, "labels": [-100] * (i % 3) + x[i % 3 :]} for i, x in enumerate(ids)]
plain = copy.deepcopy(model)  # the reference
ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
args = transformers.TrainingArguments(output_dir=folder.name, learning_rate=LR, deepspeed=ZERO,
    per_device_train_batch_size=4, gradient_accumulation_steps=4, num_train_epochs=1, lr_scheduler_type="constant",
    logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, max_grad_norm=0.0,
    average_tokens_across_devices=False)
trainer = Own(model=model, args=args, train_dataset=data, data_collator=collate, callbacks=[Watch()])
trainer._get_train_sampler = lambda *_: range(len(data))  # in order
trainer.train()
rates = [LR for step in range(1)]
seen = [(a, (a - b) / r, r) for a, b, r in zip([flat(ours), *weights], weights, rates)]  # what plain SGD did
(before, got, rate), log, rows = seen[0], trainer.state.log_history[0], data
parts = [rows[i : i + 4] for i in range(0, len(rows), 4)]  # the micro-batches
torch.nn.utils.vector_to_parameters(before.float(), ours)
total, count = loss_of(rows)  # the whole batch at once
loss, want = total / count, gradient_of(total / count)
each = [gradient_of(loss_of(part)[0] / count) for part in parts]
weights = [round(w, 3) for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
wrong = check("step 1: gradient", got, want, of=" (relative to the whole batch's gradient)")
wrong |= check("the loss logged", log["loss"], loss, 1e-4 + 1e-4 / max(abs(float(loss)), 1e-3))
wrong |= check("the norm logged", log.get("grad_norm") or want.norm(), want.norm())
print("WRONG" if wrong else "RIGHT", "with transformers", transformers.__version__, flush=True)
folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
