"""OpenRLHF 0.11.2: the policy_loss that train_ppo_ray logs weighs every micro-batch by its tokens twice (truestep-2026-82)

Trains one step of OpenRLHF's actor (PolicyModelActor.fit) on given experience in four micro-batches of unequal length, without a
cluster, and compares the policy_loss in the status that it returns with plain PyTorch's: the clipped loss, the mean over all tokens.
Since https://github.com/OpenRLHF/OpenRLHF/pull/1249 a micro-batch's loss is normalised by the tokens of the step; the log still takes
their mean weighted by tokens. The step is right. Run on 0.11.2 (DeepSpeed 0.19.7): wrong; on 0.10.3 (0.18.9): right.
Run: python this_file.py (openrlhf 0.10 or newer, ray, deepspeed, transformers, datasets; CPU). Exit code: 1 wrong, 0 right."""
import argparse, os, runpy, sys, tempfile, types
from dataclasses import fields
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1")
import deepspeed, ray, torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers

# What a CPU and a machine without a generator lack, and nothing of the step. What is only imported for them is an empty package.
class Unused(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"Image": object})
for package, parts in {"flash_attn": ("bert_padding", "utils", "utils.distributed"), "aiohttp": (), "PIL": (),
                       "vllm": ("inputs", "utils", "distributed", "distributed.device_communicators")}.items():
    for name in (package, *(f"{package}.{part}" for part in parts)) if find_spec(package) is None else ():
        sys.modules[name] = module = Unused(name)
        module.__path__, module.__spec__, module.__version__ = [], ModuleSpec(name, None), "0"
torch.cuda.current_device = lambda: torch.device("cpu")
for name in ("set_device", "synchronize", "empty_cache"):
    setattr(torch.cuda, name, lambda *_: None)
import torch.distributed.device_mesh as device_mesh
mesh, add = device_mesh.init_device_mesh, argparse._ActionsContainer.add_argument
device_mesh.init_device_mesh = lambda _, *given, **named: mesh("cpu", *given, **named)
def with_fp32(self, *given, **named):
    if "param_dtype" in str(given):
        named["choices"] = [*named["choices"], "fp32"]
    return add(self, *given, **named)
argparse._ActionsContainer.add_argument = with_fp32
import openrlhf.utils, openrlhf.utils.utils as utils
dtype_of = utils.convert_to_torch_dtype
utils.convert_to_torch_dtype = lambda name: torch.float32 if name == "fp32" else dtype_of(name)
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils import replay_buffer
from openrlhf.trainer.ray import ppo_actor
device = torch.device
replay_buffer.torch = types.SimpleNamespace(**{**vars(torch), "device": lambda _: device("cpu")})

torch.manual_seed(0)
net = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    pad_token_id=0, vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.25, attn_implementation="eager"))
net.save_pretrained(f"{folder.name}/model")
words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(32)}, unk_token="<2>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>").save_pretrained(
    f"{folder.name}/model")
with open(f"{folder.name}/data.jsonl", "w") as file:  # read, and not used
    file.write('{"input": "<3> <4> "}\n' * 16)

# 16 prompts of two tokens with responses of 1 to 8; old log-probabilities near the model's own, advantages at random
ids, place = torch.randint(3, 32, (16, 10)), torch.arange(9)
ends = torch.tensor([2 + (8, 6, 3, 1)[i // 4] for i in range(16)])
real = torch.arange(10) < ends[:, None]
mask = (place >= 1) & (place < ends[:, None] - 1)  # of the next token: whether it is the response's
def logps(model):
    return model(ids * real, attention_mask=real.long()).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
old = torch.where(mask, logps(net).detach() + 0.3 * torch.randn(16, 9), 0.0)
advantage = torch.where(mask, 1 + torch.randn(16, 1), 0.0)
ratio = (logps(net.double()) - old.double()).exp()
loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)[mask].mean().item()

class Made(Exception):
    """The strategy: here the command line would start a cluster."""
def made(args):
    raise Made(strategy_of(args))
strategy_of, openrlhf.utils.get_strategy, ray.is_initialized = openrlhf.utils.get_strategy, made, lambda: True
sys.argv = ["train_ppo_ray"] + """--actor.model_name_or_path FOLDER/model --reward.remote_url none --data.prompt_dataset FOLDER/data.jsonl
    --actor.num_gpus_per_node 1 --vllm.num_engines 0 --vllm.sync_backend gloo --train.batch_size 16 --train.micro_batch_size 4
    --rollout.batch_size 16 --rollout.micro_batch_size 1 --ds.zero_stage 0 --ds.param_dtype fp32 --ds.attn_implementation eager
    --algo.advantage.estimator reinforce --actor.adam.lr 0.01 --ckpt.output_dir FOLDER/out --ckpt.path FOLDER/out
    """.replace("FOLDER", folder.name).split()
try:
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
except Made as found:
    strategy = found.args[0]
loader = ppo_actor.DataLoader  # in order
ppo_actor.DataLoader = lambda *given, **named: loader(*given, **{**named, "shuffle": False})
actor = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class(1, 0, "127.0.0.1", 1)
actor.init_model_from_pretrained(strategy, f"{folder.name}/model", 1, None)
backward, trained = actor.actor.model.backward, []
actor.actor.model.backward = lambda value, *given, **named: trained.append(float(value.detach())) or backward(value, *given, **named)
given = {"sequences": ids * real, "attention_mask": real.long(), "action_mask": mask, "action_log_probs": old, "rollout_log_probs": old,
         "base_action_log_probs": old, "advantages": advantage, "values": 0 * old, "returns": 0 * old, "prompts": [""] * 16,
         "labels": [""] * 16, "total_length": real.sum(1), "response_length": mask.sum(1),
         "info": {name: torch.ones(16) for name in ("reward", "return", "response_length", "total_length", "kl")}}
actor.append(Experience(**{field.name: given[field.name] for field in fields(Experience) if field.name in given}))
told, tokens = actor.fit(0.0)["policy_loss"], mask.view(4, 4, -1).sum((1, 2)).tolist()
twice = sum(n * value for n, value in zip(tokens, trained)) / sum(tokens)
print(f"tokens of the micro-batches {tokens}; losses that backward was called with {[round(t, 4) for t in trained]}")
print(f"their mean {sum(trained) / 4:.6f}, weighted by tokens {twice:.6f}; plain PyTorch {loss:.6f}")
off = abs(told / loss - 1)
print(f"the policy_loss logged is {told:.6f}: off by {off:.2g}" + ("" if off <= 1e-4 else "  <- WRONG"))
print(f"{'WRONG' if off > 1e-4 else 'RIGHT'} with openrlhf {version('openrlhf')}, deepspeed {deepspeed.__version__}", flush=True)
folder.cleanup(), os._exit(off > 1e-4)  # at once: gloo's threads may abort an ordinary exit
