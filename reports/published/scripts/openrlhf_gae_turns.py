"""OpenRLHF 0.11.2: what the environment says between two turns counts in GAE as states worth nothing (truestep-2026-84)

Calls the real RemoteExperienceMaker.get_advantages_and_returns (gamma 1, lambda 0.95) on one sample of two turns with three actions each,
values 0.5 and a reward of 1 at the end, and N tokens of the environment between the turns, which are no actions (action_mask 0).
The advantages of the six actions are those of arXiv 1506.02438, equation 16, over the actions, whatever N is; here each token of the
environment is a state of value 0 and discounts all that follows once more. With lambda = 1 and gamma = 1, the defaults, all is right.
Run on 0.9.0, 0.10.2, 0.10.4 and 0.11.2: wrong.
Run: python this_file.py (openrlhf 0.9 or newer, ray, torch; CPU). Exit code: 1 wrong, 0 right."""
import os, sys, types
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1")
import ray, torch, transformers  # noqa: F401

# what is only imported, to generate and for a GPU, is an empty package
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
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

def by_hand(values, rewards, mask, lam):
    """Equation 16 over the actions alone, from the last to the first."""
    advantage, following, later = torch.zeros_like(values), 0.0, 0.0
    for t in reversed([t for t in range(len(mask)) if mask[t]]):
        later = rewards[t] + following - values[t] + lam * later
        advantage[t], following = later, values[t]
    return advantage, (advantage + values) * mask

maker, worst = object.__new__(RemoteExperienceMaker), 0.0  # the method reads nothing of its object
for lam in (1.0, 0.95):
    for said in (0, 1, 10, 100):
        mask = torch.tensor([1.0] * 3 + [0.0] * said + [1.0] * 3)
        values, rewards = 0.5 * mask, torch.zeros_like(mask)
        rewards[-1] = 1
        found = maker.get_advantages_and_returns(values[None], rewards[None], mask[None], 1.0, lam)
        right = by_hand(values.double(), rewards.double(), mask, lam)
        off = max(float(((f[0] - r) * mask).norm() / r.norm()) for f, r in zip(found, right))
        worst = max(worst, off)
        print(f"lambda {lam}, {said:3} tokens of the environment: the last action of the first turn has advantage {found[0][0, 2]:6.3f}"
              f" (right {right[0][2]:.3f}), return {found[1][0, 2]:.3f} ({right[1][2]:.3f}); off by {off:.2g}")
print(f"{'WRONG' if worst > 1e-5 else 'RIGHT'} with openrlhf {version('openrlhf')}", flush=True)
os._exit(worst > 1e-5)
