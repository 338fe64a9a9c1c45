"""OpenRLHF 0.11.2: train_rm --model.loss_type logexp ignores the margins of --model.margin_loss_enable (truestep-2026-76)

Trains one step of a tiny reward model with each of the two losses, sigmoid and logexp: one function, -log sigmoid(d) = log(1 + exp(-d)),
of d = chosen - rejected - margin. Compares the gradient that the optimizer consumed with plain PyTorch's, with the margins and without.
LogExpLoss.forward takes a margin and does not use it. Run on 0.11.2 (DeepSpeed 0.19.7) and 0.10.2 (0.18.9): wrong in both.
Run: python this_file.py (openrlhf 0.10 or newer, deepspeed, transformers, datasets; CPU). Exit code: 1 wrong, 0 right."""
import argparse, json, os, runpy, sys, tempfile, types
from importlib.machinery import ModuleSpec
from importlib.metadata import version
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="-1", WORLD_SIZE="1", HF_HUB_OFFLINE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT="0")
import datasets, deepspeed, torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import logsigmoid

# What a CPU lacks, and nothing of the step: the device, attention over packed samples, float32 among the choices.
torch.cuda.current_device = lambda: torch.device("cpu")
for name in ("set_device", "synchronize", "empty_cache"):
    setattr(torch.cuda, name, lambda *_: None)
for name in ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed"):
    sys.modules[name] = stub = types.ModuleType(name)
    stub.__dict__.update(dict.fromkeys(("index_first_axis", "pad_input", "rearrange", "unpad_input", "all_gather")),
                         __path__=[], __spec__=ModuleSpec(name, None), __version__="0")
import torch.distributed.device_mesh as device_mesh
mesh, add = device_mesh.init_device_mesh, argparse._ActionsContainer.add_argument
device_mesh.init_device_mesh = lambda _, *given, **named: mesh("cpu", *given, **named)
def with_fp32(self, *given, **named):
    if "param_dtype" in str(given):
        named["choices"] = [*named["choices"], "fp32"]
    return add(self, *given, **named)
argparse._ActionsContainer.add_argument = with_fp32
import openrlhf.utils.utils as utils
dtype_of = utils.convert_to_torch_dtype
utils.convert_to_torch_dtype = lambda name: torch.float32 if name == "fp32" else dtype_of(name)
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
mapped = datasets.Dataset.map  # in one process
datasets.Dataset.map = lambda self, *given, **named: mapped(self, *given, **{**named, "num_proc": None})
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

def text(ids):
    return " ".join(f"<{i}>" for i in ids)

def draw(n):
    return torch.randint(3, 32, (n,)).tolist()

torch.manual_seed(0)
net = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(
    pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, num_labels=1, max_position_embeddings=32, initializer_range=0.25, attn_implementation="eager"))
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
net.save_pretrained(f"{folder.name}/model")
transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>").save_pretrained(
    f"{folder.name}/model")
pairs = [(draw(3 + i % 4), draw(2 + i % 5), (0.5, 2.0, 1.0, 0.0, 3.0)[i % 5]) for i in range(16)]  # chosen, rejected, margin
with open(f"{folder.name}/data.jsonl", "w") as file:
    file.writelines(json.dumps({"chosen": text(c), "rejected": text(r), "margin": m}) + "\n" for c, r, m in pairs)
datasets.config.HF_DATASETS_CACHE = folder.name

seen, initialize = [], deepspeed.initialize
def watched(*given, **named):  # the weights before the step, and Adam's first moment after it
    made = initialize(*given, **named)
    engine, step = made[0], made[0].step
    names, params = zip(*engine.module.named_parameters())
    before = dict(zip(names, [p.detach().clone() for p in params]))
    def stepped(*given, **named):
        step(*given, **named)
        seen.append((before, [engine.optimizer.state[p]["exp_avg"].flatten().double() / (1 - 0.875) for p in params]))
    engine.step = stepped
    return made
deepspeed.initialize = watched

def gradient(weights, share):  # of the mean over all pairs, in float64; share of the margins
    net.double().load_state_dict(weights)
    score = lambda ids: net(torch.tensor([ids + [1]])).logits[0, 0]
    total = sum(-logsigmoid(score(chosen) - score(rejected) - share * margin) for chosen, rejected, margin in pairs)
    return torch.cat([g.flatten() for g in torch.autograd.grad(total / len(pairs), [dict(net.named_parameters())[n] for n in weights])])

wrong = []
for loss in ("sigmoid", "logexp"):
    sys.argv = ["train_rm"] + f"""--model.model_name_or_path FOLDER/model --data.dataset FOLDER/data.jsonl --data.max_len 64
        --train.max_epochs 1 --train.batch_size 16 --train.micro_batch_size 16 --ds.zero_stage 0 --ds.param_dtype fp32
        --ds.attn_implementation eager --ds.value_head_prefix score --ckpt.output_dir FOLDER/out --ckpt.path FOLDER/out
        --adam.lr 0.01 --adam.betas 0.875 0.9375 --lr_warmup_ratio 0 --max_norm 0 --eval.dataset FOLDER/data.jsonl
        --eval.split train --model.margin_loss_enable --model.loss_type {loss}""".replace("FOLDER", folder.name).split()
    runpy.run_module("openrlhf.cli.train_rm", run_name="__main__")
    weights, got = seen.pop()
    off = [float((torch.cat(got) - want).norm() / want.norm()) for want in (gradient(weights, 1), gradient(weights, 0))]
    print(f"--model.loss_type {loss} --model.margin_loss_enable: the gradient is off by {off[0]:.2g} from that with the margins,"
          f" by {off[1]:.2g} from that without" + ("" if off[0] <= 1e-5 else "  <- WRONG"), flush=True)
    wrong += [loss] * (not off[0] <= 1e-5)
print(f"{'WRONG' if wrong else 'RIGHT'} with openrlhf {version('openrlhf')}, deepspeed {deepspeed.__version__}", *wrong, flush=True)
folder.cleanup(), os._exit(bool(wrong))  # at once: gloo's threads may abort an ordinary exit
