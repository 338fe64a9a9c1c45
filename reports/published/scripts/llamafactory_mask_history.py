"""LLaMA-Factory 0.9.5: mask_history with a template of efficient_eos trains ends of earlier answers

Compares the gradient that the optimizer received with plain PyTorch's: the mean over the last answers' tokens and ends.
Such templates write no end of sequence between turns; it is the label of the question's first token.
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
samples = [[(draw(1 + (i + t) % 2), draw((2, 1, 3, 1, 1)[(i + 3 * t) % 5])) for t in range((3, 1, 2)[i % 3])]
           for i in range(16)]  # [(question, answer), ...]
rows = [{"history": [[text(q), text(a)] for q, a in turns[:-1]], "instruction": text(turns[-1][0]),
         "output": text(turns[-1][1])} for turns in samples]
net.save_pretrained(f"{folder.name}/model")
tokenizer.save_pretrained(f"{folder.name}/model")
columns = {"prompt": "instruction", "response": "output", "history": "history"}
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

arguments = {"output_dir": f"{folder.name}/out", "per_device_train_batch_size": 16,
             "gradient_accumulation_steps": 1, "num_train_epochs": 1, "learning_rate": 0.0625,
             "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
             "report_to": "none", "disable_tqdm": True, "use_cpu": True, "max_grad_norm": 0.0,
             "stage": "sft", "do_train": True, "model_name_or_path": f"{folder.name}/model",
             "finetuning_type": "full", "dataset": "cell", "dataset_dir": folder.name,
             "cache_dir": f"{folder.name}/cache", "template": "fewshot", "cutoff_len": 64,
             "disable_shuffling": True, "disable_gradient_checkpointing": True,
             "flash_attn": "disabled", "mask_history": True}
run_exp(arguments, callbacks=[Seen()])

exact = net.double()
def tokens_of(turns):  # (what is to follow every token, and of which kind that target is)
    targets, kinds = [], []
    for left, (asked, answered) in reversed(list(enumerate(reversed(turns)))):  # how many turns follow
        targets += [0] * (len(asked) - 1) + answered + [1]
        kinds += [3] * (len(asked) - 1) + [3 if left else 0] * len(answered) + [min(left, 2)]
    return torch.tensor(targets), torch.tensor(kinds)

wrong = len(seen) != 1
for (before, got), log in zip(seen, logs):
    torch.nn.utils.vector_to_parameters(before, exact.parameters())
    sums, count = [0.0, 0.0, 0.0], 0  # the last answers; the ends of those before them; the ends of those still earlier
    for turns in samples:
        targets, kinds = tokens_of(turns)
        ids = torch.tensor([[i for turn in turns for part in turn for i in part]])
        own = -exact(ids).logits[0].double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
        sums = [total + own[kinds == kind].sum() for kind, total in enumerate(sums)]
        count += int((kinds == 0).sum())
    each = [flat(torch.autograd.grad(t / count, list(exact.parameters()), retain_graph=True)) for t in sums]
    want, loss = each[0], float(sums[0] / count)
    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
    print(f"effective weights: last answers {weights[0]}, the ends of answers before them {weights[1]}, "
          f"the ends of still earlier ones {weights[2]}  expected: 1, 0, 0")
    for what, error in (("gradient consumed", float((got - want).norm() / want.norm())),
                        ("loss logged", max(abs(log - loss) - 6e-5, 0.0) / abs(loss))):  # of four decimals
        print(f"the {what} is off by {error:.3g}" + ("" if error <= 1e-4 else "  <- WRONG"))
        wrong |= not error <= 1e-4
names = "llamafactory", "transformers"
print("WRONG with" if wrong else "RIGHT with", ", ".join(f"{name} {version(name)}" for name in names))
sys.stdout.flush(), folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
