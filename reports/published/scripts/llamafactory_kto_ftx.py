"""LLaMA-Factory 0.9.5: KTO with pref_ftx weighs its likelihood term by batch / liked, not by liked / batch

Compares the gradient that the optimizer received with plain PyTorch's: the mean over all samples of a step of the KTO
loss, and of half the mean -log p of the completion where it is liked. The divergence of KTO is of a micro-batch.
Run: python this_file.py (llamafactory; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import json, os, sys, tempfile
from importlib.metadata import version
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1", LLAMAFACTORY_VERBOSITY="ERROR")
sys.path.append(folder.name)  # for whoever has no torchaudio: it is imported for audio, which is not used
open(f"{folder.name}/torchaudio.py", "w").close()
import torch, transformers
from llamafactory.train.tuner import run_exp
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.optim.optimizer import register_optimizer_step_pre_hook
sys.excepthook = lambda *e: os._exit(print("REFUSED by llamafactory", *e[:2], flush=True, file=sys.__stdout__) or 2)

def text(ids):
    return " ".join(f"<{i}>" for i in ids)

def draw(n):
    return torch.randint(3, 32, (n,)).tolist()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

torch.manual_seed(0)
config = transformers.LlamaConfig(pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24,
    num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, num_key_value_heads=2,
    attn_implementation="eager")
def make():  # with wide weights: losses must differ
    model = transformers.LlamaForCausalLM(config)
    for p in model.parameters():
        p.data += 0.25 * torch.randn_like(p)
    return model.eval()
net, reference = make(), make()
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                                                 unk_token="<2>")
samples = [(draw(1 + i % 3), draw((3, 6, 2, 5, 4, 6, 2)[i % 7]), i % 3 != 0) for i in range(16)]
rows = [{"instruction": text(p), "output": text(c), "liked": liked} for p, c, liked in samples]
samples = [(p, c, samples[i - 1][1], liked) for i, (p, c, liked) in enumerate(samples)]  # lent by the one before
net.save_pretrained(f"{folder.name}/model")
tokenizer.save_pretrained(f"{folder.name}/model")
reference.save_pretrained(f"{folder.name}/reference")
tokenizer.save_pretrained(f"{folder.name}/reference")
columns = {"prompt": "instruction", "response": "output", "kto_tag": "liked"}
about = {"cell": {"file_name": "data.json", "columns": columns}}
for name, content in (("data", rows), ("dataset_info", about)):
    with open(f"{folder.name}/{name}.json", "w") as file:
        json.dump(content, file)

seen, logs, params = [], [], []
def watch(*_):  # every optimizer, before its step
    seen.append((flat(params), flat(torch.zeros_like(p) if p.grad is None else p.grad for p in params)))
register_optimizer_step_pre_hook(watch)
class Seen(transformers.TrainerCallback):
    def on_train_begin(self, args, state, control, model=None, **_):
        params.extend(model.parameters())
    def on_train_end(self, args, state, control, **_):
        logs.extend(log["loss"] for log in state.log_history if "loss" in log)

arguments = {"output_dir": f"{folder.name}/out", "per_device_train_batch_size": 2,
             "gradient_accumulation_steps": 8, "num_train_epochs": 1, "learning_rate": 0.0625,
             "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
             "report_to": "none", "disable_tqdm": True, "use_cpu": True, "max_grad_norm": 0.0,
             "stage": "kto", "do_train": True, "model_name_or_path": f"{folder.name}/model",
             "finetuning_type": "full", "dataset": "cell", "dataset_dir": folder.name,
             "cache_dir": f"{folder.name}/cache", "template": "empty", "cutoff_len": 64,
             "disable_shuffling": True, "disable_gradient_checkpointing": True,
             "flash_attn": "disabled", "ref_model": f"{folder.name}/reference", "pref_beta": 0.25,
             "pref_ftx": 0.5, "kto_chosen_weight": 1.5, "kto_rejected_weight": 0.75}
run_exp(arguments, callbacks=[Seen()])

exact, plain = net.double(), reference.double()
def logps(model, prompt, completion):  # of every token of the completion
    ids = torch.tensor([prompt + completion])
    found = model(ids).logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])
    return found[len(prompt) - 1 :, 0]

def loss_of(part):  # (sum, number) over these samples
    own, lent = ([(logps(exact, s[0], s[i]) - logps(plain, s[0], s[i]).detach()).sum() for s in part] for i in (1, 2))
    base, total = (sum(lent) / len(part)).clamp(min=0).detach(), 0.0
    for ratio, (prompt, completion, _, liked) in zip(own, part):
        total = total + (1.5 if liked else 0.75) * (1 - torch.sigmoid((0.25 if liked else -0.25) * (ratio - base)))
        total = total - (0.5 * logps(exact, prompt, completion).mean() if liked else 0.0)
    return total, len(part)

wrong = len(seen) != 1
for (before, got), log in zip(seen, logs):
    torch.nn.utils.vector_to_parameters(before, exact.parameters())
    parts = [samples[i : i + 2] for i in range(0, len(samples), 2)]  # the micro-batches
    terms = [loss_of(part) for part in parts]
    count = sum(n for _, n in terms)
    each = [flat(torch.autograd.grad(t / count, list(exact.parameters()))) for t, _ in terms]
    want, loss = sum(each), float(sum(t / count for t, _ in terms))
    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
    print(f"effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
    for what, error in (("gradient consumed", float((got - want).norm() / want.norm())),
                        ("loss logged", max(abs(log - loss) - 6e-5, 0.0) / abs(loss))):  # of four decimals
        print(f"the {what} is off by {error:.3g}" + ("" if error <= 1e-4 else "  <- WRONG"))
        wrong |= not error <= 1e-4
names = "llamafactory", "transformers"
print("WRONG with" if wrong else "RIGHT with", ", ".join(f"{name} {version(name)}" for name in names))
sys.stdout.flush(), folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
