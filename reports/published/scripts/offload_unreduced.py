"""DeepSpeed 0.19.7: deepspeed-mlp-W2-K4-stage:1-offload_optimizer:cpu-dtype:bf16-grad_accum_dtype:fp32

Compares the gradient that the optimizer consumed with plain PyTorch in bf16.
Run: python this_file.py (deepspeed, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys, tempfile
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
rank = int(os.fork() == 0)  # this process is rank 0, its children are the others
sys.stdout = open(os.devnull, "w") if rank else sys.stdout
os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_SIZE="2")
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

CONFIG = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "zero_allow_untested_optimizer": True,
          "zero_force_ds_cpu_optimizer": False, "gradient_clipping": 0.0, "bf16": {"enabled": True},
          "data_types": {"grad_accum_dtype": "fp32"}, "zero_optimization": {"stage": 1, "reduce_bucket_size": 100000,
          "offload_optimizer": {"device": "cpu"}}}

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
    print("REFUSED by deepspeed", deepspeed.__version__, kind.__name__, error, flush=True, file=sys.__stdout__)
    os._exit(2)
sys.excepthook = refuse
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=2)
torch.manual_seed(1)
net = Net(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
plain = copy.deepcopy(net).bfloat16()
theirs, ours = list(net.parameters()), list(plain.parameters())  # DeepSpeed's and the reference's
optimizer = torch.optim.SGD(theirs, lr=0.125, momentum=0.5)
engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
before = read()
wrong = check("before any step: the master copy", before.bfloat16().double(), flat(ours), 0)
lengths = torch.randint(1, 7, (16, 1))  # of the samples
x, y, w = torch.randn(16, 6, 6).bfloat16(), 2 * torch.randn(16, 6, 5), (torch.arange(6) < lengths) / lengths.sum()
parts = torch.arange(16).tensor_split(8)  # the samples of each micro-batch
for rows in parts[rank::2]:
    loss = engine(x[rows], y[rows], w[rows] * 8)  # backward divides by 4, averages over 2 ranks
    engine.backward(loss)
    engine.step()
after = read()
got = read("momentum_buffer")  # of the first step: the gradient
each = [flat(torch.autograd.grad(plain(x[rows], y[rows], w[rows]), ours)) for rows in parts]
want = sum(each)
weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got).round(decimals=2) + 0.0).tolist()  # least squares
print(f"effective weights of the micro-batches: {weights}\n{'expected: ':>39} {[1.0] * len(parts)}")
wrong |= check("the gradient consumed", got, want)
wrong |= check("the reported norm", want / want.norm() * engine.get_global_grad_norm(), want)
wrong |= check("the update", after, before - 0.125 * got, 1e-5)
wrong |= check("what forward uses", flat(theirs), after.bfloat16().double(), 0)
everyone = [None] * 2
torch.distributed.all_gather_object(everyone, (wrong, flat(theirs)))
wrong = any(w for w, _ in everyone) | check("rank 1, against rank 0,", everyone[1][1], everyone[0][1], 0)
print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
sys.exit(int(wrong))
