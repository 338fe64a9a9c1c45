"""DeepSpeed: deepspeed-mlp_unused-W1-K4-stage:1-offload_optimizer:cpu-overlap_comm:true

Takes the optimizer step and compares the gradient that the optimizer consumed with float64 autograd over the whole batch.
Run: python this_file.py   (deepspeed and torch; CPU is enough)
"""

import os, sys, tempfile

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import torch
import torch.distributed as dist
import deepspeed
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state, safe_get_full_grad

W, WINDOWS = 1, [4]  # ranks; micro-batches of each optimizer step

CONFIG = {'train_micro_batch_size_per_gpu': 4,
 'gradient_accumulation_steps': 4,
 'steps_per_print': 1000000000,
 'zero_allow_untested_optimizer': True,
 'zero_force_ds_cpu_optimizer': False,
 'gradient_clipping': 0.0,
 'zero_optimization': {'stage': 1,
                       'reduce_bucket_size': 100000,
                       'allgather_bucket_size': 100000,
                       'overlap_comm': True,
                       'offload_optimizer': {'device': 'cpu'}}}

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
        self.a = torch.nn.Linear(8, 8)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x, y, w, flags):
        h = torch.tanh(self.first(x))
        if flags.any():  # some micro-batches leave this layer out
            h = h + flags[:, None, None].to(h.dtype) * torch.tanh(self.a(h))
        logits = self.last(h)
        return (((logits - y) ** 2).sum(-1) * w).sum()


def loss_of(net, x, y, w, flags):
    return net(x, y, w, flags)


def model():
    torch.manual_seed(1)
    net = Net()
    for p in net.parameters():
        p.data.mul_(1.5)
    return net


def data(step):  # 16 samples of unequal length; w: the weight of each token in the loss of the whole step
    g = torch.Generator().manual_seed(1 + step)
    x, y = torch.randn(16, 6, 6, generator=g), 2 * torch.randn(16, 6, 5, generator=g) + torch.linspace(-2, 2, 16)[:, None, None]
    n = torch.tensor([(1, 5, 2, 6, 3, 6, 2)[(i + step) % 7] for i in range(16)]); mask = torch.arange(6) < n[:, None]
    flags = torch.arange(16) // 4 % 2 == 0
    return x, y, mask / mask.sum(), flags

def weights_of(engine, named):
    found = []
    for _, p in named:
        with torch.no_grad():
            found.append(p.detach().double().clone())
    return found


def engine_of(net):
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.125, momentum=0.5)
    engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG, dist_init_required=False)[0]
    return engine, [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]


def observe(engine, named, fresh=False):  # float32 master copy and optimizer state of every parameter
    masters = [safe_get_full_fp32_param(p) for _, p in named]
    zeros = [torch.zeros_like(m) for m in masters]
    state0 = zeros if fresh else [safe_get_full_optimizer_state(p, 'momentum_buffer') for _, p in named]
    return [[t.detach().double().clone() for t in group] for group in (masters, state0)]


def gradients(net, weights, x, y, w, flags):  # of plain PyTorch, in the dtype of net
    own = [p for p in net.parameters() if p.requires_grad]
    for p, value in zip(own, weights):
        p.data.copy_(value)
    total = loss_of(net, x if x.dtype == torch.int64 else x.to(own[0].dtype), y, w, flags)
    found = torch.autograd.grad(total, own, allow_unused=True)
    return [torch.zeros_like(p).double() if g is None else g.double() for p, g in zip(own, found)]


def train(rank):
    def say(text):
        if rank == 0:
            print(text)
    engine, named = engine_of(model())
    wrong, folder = False, os.environ["REPRO_FOLDER"]
    observed = observe(engine, named, fresh=True)
    for step, K in enumerate(WINDOWS):
        weights = weights_of(engine, named)
        if step == 0:
            error = max(float((safe_get_full_fp32_param(p).double() - q).norm() / q.norm()) for (_, p), q in zip(named, weights))
            say(f"before any step: safe_get_full_fp32_param is off by {error:.3g}")
            wrong |= error > 1e-6
        x, y, w, flags = data(step)
        order = torch.arange(16)
        parts = order.split(sizes(W * K))
        scale = engine.gradient_accumulation_steps()
        for k, rows in enumerate(parts[rank::W]):
            loss = loss_of(engine, x[rows], y[rows], w[rows] * (scale * W), flags[rows])
            engine.backward(loss)
            engine.step()
        after = observe(engine, named)
        got = [b - 0.5 * a for a, b in zip(observed[1], after[1])]
        columns = [gradients(model().double(), weights, x[r], y[r], w[r], flags[r]) for r in parts]
        want = [sum(c[i] for c in columns) for i in range(len(got))]
        full = norm = float(torch.cat([t.flatten() for t in want]).norm())
        error = max(float((a - b).norm() / max(b.norm(), norm / 64)) for a, b in zip(got, want))
        flat = lambda tensors: torch.cat([t.flatten() for t in tensors])
        weight = torch.linalg.lstsq(torch.stack([flat(c) for c in columns], 1), flat(got)[:, None], driver="gelsd").solution[:, 0]
        say(f"step {step + 1}: the gradient consumed is off by {error:.3g}; "
            f"weights of the {W * K} micro-batches (1 is right): {[round(v, 3) for v in weight.tolist()]}")
        wrong |= not error <= 4e-6
        reported = engine.get_global_grad_norm()
        if reported is not None:
            error = abs(float(reported) / full - 1)
            say(f"step {step + 1}: the reported gradient norm is off by {error:.3g}")
            wrong |= not error <= 4e-6
        error = max(float((q - (p - 0.125 * b)).norm() / q.norm()) for p, q, b in zip(observed[0], after[0], after[1]))
        say(f"step {step + 1}: the update is off by {error:.3g} of the weights")
        wrong |= not error <= 1e-4
        observed = after
    if W > 1:
        mine = torch.cat([p.flatten() for p in weights_of(engine, named)])
        both = [torch.empty_like(mine) for _ in range(W)]
        dist.all_gather(both, mine)
        say(f"ranks differ by {float((both[0] - both[1]).abs().max()):.2g}")
        wrong |= not torch.equal(both[0], both[1])
    return wrong


def sizes(parts):
    extra, count = 16 - parts, [1] * parts
    turns = list(range(parts))
    for i in range(extra):
        count[turns[i % len(turns)]] += 1
    return count

def main(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(W), LOCAL_SIZE=str(W))
    store = dist.FileStore(os.path.join(os.environ["REPRO_FOLDER"], "store"), W)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=W)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda *a, **k: None  # a transport; gloo does as well
    deepspeed.init_distributed("gloo", verbose=False)
    torch.set_num_threads(1)
    try:
        wrong = train(rank)
    except Exception as error:
        print("REFUSED by deepspeed", deepspeed.__version__, type(error).__name__, error, flush=True)
        os._exit(2)
    if rank == 0:
        print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
    sys.stdout.flush()
    os._exit(int(wrong))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REPRO_FOLDER"] = folder
        ranks = [torch.multiprocessing.get_context("fork").Process(target=main, args=(r,)) for r in range(W)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    codes = [p.exitcode for p in ranks]
    sys.exit(max(codes) if set(codes) <= {0, 1} else 2)
