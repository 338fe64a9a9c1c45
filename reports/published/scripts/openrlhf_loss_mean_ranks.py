"""OpenRLHF 0.11.2: the loss_mean that train_sft, train_rm and train_dpo log is what rank 0 saw (truestep-2026-73, -rm, -dpo)

Trains one step of each command line on two ranks with four micro-batches each. The loss that is optimised is the mean, over micro-batches
and ranks, of what backward is called with: DeepSpeed averages the gradients so. loss_mean, which the trainer logs, is the mean over
rank 0's alone: it is summed up locally, while the other figures of a step are reduced over the ranks.
Run on 0.11.2 (DeepSpeed 0.19.7) and 0.10.2 (0.18.9): wrong in both.
Run: python this_file.py (openrlhf 0.10 or newer, deepspeed, transformers, datasets; CPU). Exit code: 1 wrong, 0 right."""
import argparse, json, os, runpy, sys, tempfile, types
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import version
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
rank = int(os.fork() == 0)  # this process is rank 0, its child the other
sys.stdout = open(os.devnull, "w") if rank else sys.stdout
os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK="-1", WORLD_SIZE="2", HF_HUB_OFFLINE="1", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT="0")
import datasets, deepspeed, torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers

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
torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=2)

def text(ids):
    return " ".join(f"<{i}>" for i in ids)

def draw(n):
    return text(torch.randint(3, 32, (n,)).tolist())

torch.manual_seed(0)
words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>")
for name in ("model", "reference"):
    net = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.5, attn_implementation="eager"))
    if rank == 0:
        net.save_pretrained(f"{folder.name}/{name}"), tokenizer.save_pretrained(f"{folder.name}/{name}")
samples = [{"prompt": draw(1 + i % 3) + " ", "chosen": draw(1 + i % 5), "rejected": draw(1 + i % 4)} for i in range(16)]
if rank == 0:
    with open(f"{folder.name}/data.jsonl", "w") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
datasets.config.HF_DATASETS_CACHE = folder.name
torch.distributed.barrier()

losses, logs, initialize = [], [], deepspeed.initialize
def watched(*given, **named):
    made = initialize(*given, **named)
    backward = made[0].backward
    def went_back(loss, *given, **named):
        losses.append(loss.detach().double())
        return backward(loss, *given, **named)
    made[0].backward = went_back
    return made
deepspeed.initialize = watched

wrong = []
for command, module, name, more in (
    ("train_sft", "sft_trainer", "SFTTrainer", "--data.input_key prompt --data.output_key chosen --data.input_template {}"),
    ("train_rm", "rm_trainer", "RewardModelTrainer", "--data.prompt_key prompt --eval.dataset FOLDER/data.jsonl --eval.split train"),
    ("train_dpo", "dpo_trainer", "DPOTrainer", "--data.prompt_key prompt --ref.model_name_or_path FOLDER/reference"),
):
    trainer = getattr(import_module(f"openrlhf.trainer.{module}"), name)
    save = trainer.save_logs_and_checkpoints
    def logging(self, args, step, bar, told, *rest, save=save, **named):
        logs.append(told["loss_mean"])
        return save(self, args, step, bar, told, *rest, **named)
    trainer.save_logs_and_checkpoints = logging
    sys.argv = [command] + f"""--model.model_name_or_path FOLDER/model --data.dataset FOLDER/data.jsonl --data.max_len 64 {more}
        --train.max_epochs 1 --train.batch_size 16 --train.micro_batch_size 2 --ds.zero_stage 0 --ds.param_dtype fp32 --adam.lr 0.01
        --ds.attn_implementation eager --ckpt.output_dir FOLDER/out --ckpt.path FOLDER/out""".replace("FOLDER", folder.name).split()
    runpy.run_module(f"openrlhf.cli.{command}", run_name="__main__")
    own = sum(losses) / len(losses)
    torch.distributed.all_reduce(mean := own.clone()), losses.clear()
    off = abs(logs[-1] / float(mean / 2) - 1)
    print(f"{command}: loss_mean {logs.pop():.4f}, optimised {mean / 2:.4f}, rank 0's {own:.4f}: off by {off:.2g}" + " <- WRONG" * (off > 1e-5),
          flush=True)
    wrong += [command] * (not off <= 1e-5)
print(f"{'WRONG' if wrong else 'RIGHT'} with openrlhf {version('openrlhf')}, deepspeed {deepspeed.__version__}", *wrong, flush=True)
folder.cleanup(), os._exit(bool(wrong))  # at once: gloo's threads may abort an ordinary exit
