"""DeepSpeed 0.19.8: deepspeed-mlp-W1-K2x3-dtype:bf16-optimizer:adam

Compares the gradient that the optimizer consumed with plain PyTorch in bf16.
Run: python this_file.py (deepspeed, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys
os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="localhost", MASTER_PORT="0")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

LR, BETA1, BETA2, EPS, DECAY = 0.0625, 0.875, 0.9375, 9.5367431640625e-07, 0.015625
CONFIG = {"train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 2, "gradient_clipping": 0.0,
          "bf16": {"enabled": True}}

class Net(torch.nn.Sequential):
    def forward(self, x, y, w):  # w: the weight of every token in the loss of the whole batch
        return (((super().forward(x).float() - y) ** 2).sum(-1) * w).sum()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

def read(key=None):  # the master copy or a state; safe_get_* does not know FP16_UnfusedOptimizer
    if hasattr(engine.optimizer, "fp32_groups"):
        return flat(engine.optimizer.state[p][key] if key else p for p in engine.optimizer.fp32_groups[0])
    return flat(safe_get_full_optimizer_state(p, key) if key else safe_get_full_fp32_param(p) for p in theirs)

def check(what, got, want, limit=1e-2):  # relative error of the worst parameter; tiny ones against all
    pairs = zip(*(vector.split([p.numel() for p in ours]) for vector in (got, want)))
    error = torch.stack([(a - b).norm() / max(b.norm(), want.norm() / 64) for a, b in pairs]).max().item()
    print(f"{what} is off by {error:.3g}" + ("" if error <= limit else "  <- WRONG"))
    return not error <= limit

def refuse(kind, error, trace):
    print("REFUSED by deepspeed", deepspeed.__version__, kind.__name__, error, flush=True)
    os._exit(2)
sys.excepthook = refuse
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
torch.manual_seed(1)
net = Net(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
plain = copy.deepcopy(net).bfloat16()
theirs, ours = list(net.parameters()), list(plain.parameters())  # DeepSpeed's and the reference's
optimizer = torch.optim.AdamW(theirs, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY)
engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
before, old = read(), 0.0
wrong = check("before any step: the master copy", before.bfloat16().double(), flat(ours), 0)
parts = torch.arange(16).tensor_split(2)  # the samples of each micro-batch
for step in range(1, 4):
    lengths = torch.randint(1, 7, (16, 1))  # of the samples
    x, y, w = torch.randn(16, 6, 6).bfloat16(), 2 * torch.randn(16, 6, 5), (torch.arange(6) < lengths) / lengths.sum()
    for rows in parts:
        loss = engine(x[rows], y[rows], w[rows] * 2)  # backward divides by 2
        engine.backward(loss)
        engine.step()
    after = read()
    m, v = read("exp_avg"), read("exp_avg_sq")
    got = (m - BETA1 * old) / (1 - BETA1)  # m = BETA1 * old + (1 - BETA1) * gradient
    torch.nn.utils.vector_to_parameters(before.bfloat16(), ours)
    each = [flat(torch.autograd.grad(plain(x[rows], y[rows], w[rows]), ours)) for rows in parts]
    want = sum(each)
    weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got).round(decimals=2) + 0.0).tolist()  # least squares
    print(f"step {step}: effective weights of the micro-batches: {weights}\n{'expected: ':>47} {[1.0] * len(parts)}")
    wrong |= check(f"step {step}: the gradient consumed", got, want)
    wrong |= check(f"step {step}: the reported norm", want / want.norm() * engine.get_global_grad_norm(), want)
    right = before * (1 - LR * DECAY) - LR * m / (1 - BETA1**step) / ((v / (1 - BETA2**step)).sqrt() + EPS)
    wrong |= check(f"step {step}: the update", after, right, 1e-5)
    wrong |= check(f"step {step}: what forward uses", flat(theirs), after.bfloat16().double(), 0)
    before, old = after, m
print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
sys.exit(int(wrong))
