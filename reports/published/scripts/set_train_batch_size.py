"""DeepSpeed 0.19.8: deepspeed-mlp-W1-K1.8.2

Compares the gradient that the optimizer consumed with float64 autograd over the whole batch.
Run: python this_file.py (deepspeed, torch; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
import copy, os, sys
os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="localhost", MASTER_PORT="0")
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
import deepspeed, torch

CONFIG = {"train_micro_batch_size_per_gpu": 2, "gradient_clipping": 0.0}

class Net(torch.nn.Sequential):
    def forward(self, x, y, w):  # w: the weight of every token in the loss of the whole batch
        return (((super().forward(x) - y) ** 2).sum(-1) * w).sum()

def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])

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
before, old = flat(theirs), 0.0
wrong = False
for step, K in enumerate([1, 8, 2], 1):
    lengths = torch.randint(1, 7, (16, 1))  # of the samples
    x, y, w = torch.randn(16, 6, 6), 2 * torch.randn(16, 6, 5), (torch.arange(6) < lengths) / lengths.sum()
    parts = torch.arange(16).tensor_split(K)
    engine.set_train_batch_size(K * 2)
    for rows in parts:
        loss = engine(x[rows], y[rows], w[rows] * K)  # backward divides by K
        engine.backward(loss)
        engine.step()
    after = flat(theirs)
    buffer = flat(engine.optimizer.state[p]["momentum_buffer"] for p in theirs)
    got = buffer - 0.5 * old  # buffer = 0.5 * old + gradient
    torch.nn.utils.vector_to_parameters(before, ours)
    each = [flat(torch.autograd.grad(exact(x[rows].double(), y[rows], w[rows]), ours)) for rows in parts]
    want = flat(torch.autograd.grad(exact(x.double(), y, w), ours))  # the whole batch at once
    weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got).round(decimals=3) + 0.0).tolist()  # least squares
    print(f"step {step}: effective weights of the micro-batches: {weights}\n{'expected: ':>47} {[1.0] * len(parts)}")
    wrong |= check(f"step {step}: the gradient consumed", got, want)
    wrong |= check(f"step {step}: the update", after, before - 0.125 * buffer)
    before, old = after, buffer
print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
sys.exit(int(wrong))
