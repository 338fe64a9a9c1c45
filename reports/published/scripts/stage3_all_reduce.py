"""DeepSpeed 0.17.2: deepspeed-mlp-W1-K4-stage:3-reduce_scatter:false

Compares the gradient that the optimizer consumed with float64 autograd over the whole batch.
Run: python this_file.py (deepspeed, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys
os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="localhost", MASTER_PORT="0")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

CONFIG = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4, "zero_allow_untested_optimizer": True,
          "gradient_clipping": 0.0, "zero_optimization": {"stage": 3, "reduce_bucket_size": 100000,
          "stage3_param_persistence_threshold": 0, "reduce_scatter": False}}

class Net(torch.nn.Sequential):
    def forward(self, x, y, w):  # w: the weight of every token in the loss of the whole batch
        return (((super().forward(x) - y) ** 2).sum(-1) * w).sum()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

def gathered(p):  # one by one: all at once, gloo may show garbage up to 0.19.7
    with deepspeed.zero.GatheredParameters([p]):
        return p.detach().clone()

def check(what, got, want, limit=4e-6):  # relative error of the worst parameter; tiny ones against all
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
exact = copy.deepcopy(net).double()
theirs, ours = list(net.parameters()), list(exact.parameters())  # DeepSpeed's and the reference's
optimizer = torch.optim.SGD(theirs, lr=0.125, momentum=0.5)
engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
wrong = check("before any step: safe_get_full_fp32_param", flat(map(safe_get_full_fp32_param, theirs)), flat(ours), 0)
lengths = torch.randint(1, 7, (16, 1))  # of the samples
x, y, w = torch.randn(16, 6, 6), 2 * torch.randn(16, 6, 5), (torch.arange(6) < lengths) / lengths.sum()
parts = torch.arange(16).tensor_split(4)  # the samples of each micro-batch
for rows in parts:
    loss = engine(x[rows], y[rows], w[rows] * 4)  # backward divides by 4
    engine.backward(loss)
    engine.step()
after = flat(map(safe_get_full_fp32_param, theirs))
got = flat(safe_get_full_optimizer_state(p, "momentum_buffer") for p in theirs)  # of the first step: the gradient
each = [flat(torch.autograd.grad(exact(x[rows].double(), y[rows], w[rows]), ours)) for rows in parts]
want = flat(torch.autograd.grad(exact(x.double(), y, w), ours))  # the whole batch at once
weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got).round(decimals=3) + 0.0).tolist()  # least squares
print(f"effective weights of the micro-batches: {weights}\n{'expected: ':>39} {[1.0] * len(parts)}")
wrong |= check("the gradient consumed", got, want)
wrong |= check("the reported norm", want / want.norm() * engine.get_global_grad_norm(), want)
wrong |= check("the update", after, flat(ours) - 0.125 * got)
wrong |= check("what forward uses", flat(map(gathered, theirs)), after, 0)
print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__, flush=True)
os._exit(int(wrong))
