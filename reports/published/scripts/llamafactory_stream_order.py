"""LLaMA-Factory 0.9.5: streaming draws samples from a buffer at random, whatever disable_shuffling says

Compares the gradient that the optimizer received with plain PyTorch's of the samples in their order.
With buffer_size 1 as argument all is right: this_file.py 1.
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
net = make()
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                                                 unk_token="<2>")
samples = [[(draw(1 + i % 3), draw((2, 5, 1, 4, 3, 3, 5)[i % 7]))] for i in range(12)]  # [(question, answer)]
rows = [{"instruction": text(q), "output": text(a)} for ((q, a),) in samples]
net.save_pretrained(f"{folder.name}/model")
tokenizer.save_pretrained(f"{folder.name}/model")
columns = {"prompt": "instruction", "response": "output"}
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

arguments = {"output_dir": f"{folder.name}/out", "per_device_train_batch_size": 4,
             "gradient_accumulation_steps": 1, "num_train_epochs": 1, "learning_rate": 0.0625,
             "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
             "report_to": "none", "disable_tqdm": True, "use_cpu": True, "max_grad_norm": 0.0,
             "stage": "sft", "do_train": True, "model_name_or_path": f"{folder.name}/model",
             "finetuning_type": "full", "dataset": "cell", "dataset_dir": folder.name,
             "cache_dir": f"{folder.name}/cache", "template": "empty", "cutoff_len": 64,
             "disable_shuffling": True, "disable_gradient_checkpointing": True,
             "flash_attn": "disabled", "streaming": True, "max_steps": 3,
             "dataloader_num_workers": 1,
             **({"buffer_size": int(sys.argv[1])} if sys.argv[1:] else {})}
run_exp(arguments, callbacks=[Seen()])

exact = net.double()
def loss_of(part):  # (sum, number) over the trained tokens of these samples
    total, count = 0.0, 0
    for turns in part:
        ids, targets = [], []  # what is to follow every token, -100: nothing
        for asked, answered in turns:
            ids += asked + answered
            targets += [-100] * (len(asked) - 1) + answered + [-100]
        targets = torch.tensor(targets)
        logits = exact(torch.tensor([ids])).logits[0].double()
        surprise, trained = -logits.log_softmax(-1), targets != -100
        own = surprise.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        total, count = total + (own * trained).sum(), count + int(trained.sum())
    return total, count

wrong, at = len(seen) != 3, 0
for step, (K, (before, got), log) in enumerate(zip([1, 1, 1], seen, logs)):
    torch.nn.utils.vector_to_parameters(before, exact.parameters())
    parts, here = [[sample] for sample in samples], range(at * 4, (at + K) * 4)
    used = [float(i in here) for i in range(len(parts))]
    at, terms = at + K, [loss_of(part) for part in parts]
    count = sum(u * n for u, (_, n) in zip(used, terms))
    each = [flat(torch.autograd.grad(t / count, list(exact.parameters()))) for t, _ in terms]
    want, loss = sum(u * g for u, g in zip(used, each)), float(sum(u * t / count for u, (t, _) in zip(used, terms)))
    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
    print(f"step {step + 1}: effective weights of the samples: {weights}  expected: {used}")
    for what, error in (("gradient consumed", float((got - want).norm() / want.norm())),
                        ("loss logged", max(abs(log - loss) - 6e-5, 0.0) / abs(loss))):  # of four decimals
        print(f"the {what} is off by {error:.3g}" + ("" if error <= 1e-4 else "  <- WRONG"))
        wrong |= not error <= 1e-4
names = "llamafactory", "transformers"
print("WRONG with" if wrong else "RIGHT with", ", ".join(f"{name} {version(name)}" for name in names))
sys.stdout.flush(), folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
