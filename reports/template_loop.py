"""What the scripts of hand-written loops share (accelerate's, and plain PyTorch's): model, samples, reference, comparison.

Model and samples are those of the cell, drawn anew by a few lines of the script, so that its figure is the verdict's.
"""

from __future__ import annotations

from truestep.fixtures.cell import Cell, order
from truestep.reports.template import Flags, Values

HEAD = r"""
                  |$quotes$name $version: $id
                  |Compares the gradient that the optimizer consumed with the float64 gradient of the whole batch, in plain PyTorch.
                  |Run: python this_file.py ($packages; CPU). Exit code: 1 wrong, 0 right, 2 refused.$quotes
                  |import $modules
folder            |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
ranks             |rank = next((r for r in range(1, $W) if os.fork() == 0), 0)  # this process is rank 0, its children are the others
ranks             |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
joined            |os.environ.update(RANK=$rank, LOCAL_RANK=$rank, WORLD_SIZE="$W", MASTER_ADDR="localhost", MASTER_PORT="0")
"""
MODEL = r"""
mlp               |class Net(torch.nn.Module):
mlp               |    def __init__(self):
mlp               |        super().__init__()
mlp               |        self.first, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(8, 5)
mlp               |
mlp               |    def forward(self, x):
mlp               |        return self.last(torch.tanh(self.first(x)))
variant           |class Net(torch.nn.Module):
variant           |    def __init__(self):
variant           |        super().__init__()
variant           |        self.first = torch.nn.Linear(6, 8)
tied              |        self.middle, self.second_middle = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
tied              |        self.second_middle.weight = self.middle.weight
reused            |        self.middle = torch.nn.Linear(8, 8)
unused            |        self.optional = torch.nn.Linear(8, 8)
variant           |        self.last = torch.nn.Linear(8, 5)
frozen            |        self.first.weight.requires_grad_(False)
variant           |
variant           |    def forward(self, x$used):
variant           |        h = torch.tanh(self.first(x))
tied              |        h = torch.tanh(self.second_middle(torch.tanh(self.middle(h))))
reused            |        h = torch.tanh(self.middle(torch.tanh(self.middle(h))))
unused            |        if used.any():  # some micro-batches leave this layer out
unused            |            h = h + used[:, None, None] * torch.tanh(self.optional(h))
variant           |        return self.last(h)
                  |
                  |def make(seed):
                  |    torch.manual_seed(seed)
lm                |    net = transformers.${lm_class}ForCausalLM(transformers.${lm_class}Config(
lm                |        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
lm                |        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.25, tie_word_embeddings=$tie,
lm                |        attn_implementation="eager"))
lm                |    for p in [p for n, p in net.named_parameters() if n.endswith("bias")]:
lm                |        p.data.normal_(std=0.2)
!lm               |    net = Net()
!lm               |    for p in net.parameters():
!lm               |        p.data *= 1.5  # so wide that errors show
                  |    return net
                  |
                  |def samples(step):  # what goes in, what should come out, which positions count: of 16 samples$equal
                  |    random = torch.Generator().manual_seed($drawn + 10 * step)
lm                |    ids = torch.randint(0, 32, (16, 7), generator=random)
lm                |    x, y = ids[:, :-1], ids[:, 1:]
!lm               |    x, y = (torch.randn(16, 6, n, generator=random, dtype=torch.double).float() for n in (6, 5))
!lm               |    y = 2 * y + torch.linspace(-2, 2, 16)[:, None, None]
equal             |    counts = torch.ones(16, 6, dtype=torch.bool)
!equal            |    length = torch.tensor([(1, 5, 2, 6, 3, 6, 2)[(i + step) % 7] for i in range(16)])[:, None]
!equal            |    first = torch.minimum(length - 1, torch.arange(16)[:, None] % 3)$from_second
!equal            |    counts = (torch.arange(6) >= first) & (torch.arange(6) < length$at_least)
                  |    return $returned
                  |
                  |def loss_of(output, y, counts):  # summed over the $units
lm                |    losses = torch.nn.functional.cross_entropy(output.logits.transpose(1, 2), y, reduction="none")
lm                |    return (losses * $weights).sum()
!lm               |    return ((output - y).square().sum(-1) * $weights).sum()
                  |
                  |def gradient(step, weights):  # of the mean over all samples of that step, in float64, at these weights
                  |    $row = (t.double() if t.is_floating_point() else t for t in samples(step$modulo))
                  |    torch.nn.utils.vector_to_parameters(torch.cat([w.flatten() for w in weights]), ours.values())
                  |    return torch.autograd.grad(loss_of($reference, y, counts) / $items, [*ours.values()])
                  |
                  |def check(what, got, want, limit=1e-5):
                  |    whole = sum(w.square().sum() for w in want).sqrt()
                  |    errors = {n: float((g - w).norm() / max(w.norm(), whole / 1024)) for n, g, w in zip(ours, got, want)}
                  |    (where, error), *others = sorted(errors.items(), key=lambda item: -item[1])
                  |    others = ", ".join(f"{n} {e:.3g}" for n, e in others[:5])
                  |    print(f"{what} is off by {error:.3g} in {where} ({others})" + ("" if error <= limit else "  <- WRONG"))
                  |    return not error <= limit
                  |
"""
END = r"""
ranks             |mine = torch.cat([p.flatten() for p in $final])
ranks             |torch.distributed.broadcast(other := mine.clone(), 1)
ranks             |if (other - mine).abs().max() > 0:
ranks             |    wrong = not print("the ranks end with different weights  <- WRONG")
                  |print("WRONG" if wrong else "RIGHT", "with $name", $name.__version__, flush=True)
folder            |folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
!folder           |os._exit(int(wrong))
"""


def flags_of(cell: Cell) -> Flags:
    variant = cell.model.partition("_")[2]
    return {
        "ranks": cell.split.world_size > 1,
        "mlp": cell.model == "mlp",
        "lm": cell.task == "lm",
        "variant": bool(variant),
        **{name: variant == name for name in ("tied", "reused", "unused", "frozen")},
        "equal": cell.batch == "equal",
    }


def values_of(cell: Cell, flags: Flags) -> Values:
    split, by_token = cell.split, cell.objective == "token_mean"
    several, used = split.epochs > 1, ", used" * flags["unused"]
    names = ["x", "y", "counts"] + ["torch.arange(16) % 8 < 4"] * flags["unused"]
    rows = (
        f"[{list(order(cell.batch, cell.seed))}]"
        if cell.batch == "shuffled"
        else f"[:{split.samples(0)}]" * (split.samples(0) < 16)
    )
    if len({split.samples(s) for s in range(split.steps)}) > 1:  # a short last window has fewer samples
        rows = f"[: {split.world_size * (split.size or 1)} * WINDOWS[step]]"
    every = ", ".join(names)
    return {
        "quotes": '"' * 3,
        "id": cell.id,
        "W": str(split.world_size),
        "used": used,
        "equal": " of unequal length" * (not flags["equal"]),
        "drawn": str(1000 * cell.seed + 7),
        "from_second": ".clamp(min=1)" * (cell.batch == "prompted"),
        "at_least": ".clamp(min=2)" * (cell.batch == "prompted"),
        "returned": f"[t{rows} for t in ({every})]" if rows else every,
        "row": f"x, y, counts{used}",
        "weights": "counts" if by_token else "counts / counts.sum(1, keepdim=True)",
        "units": "positions that count" if by_token else "samples, of each the mean of the positions that count",
        "items": "counts.sum()" if by_token else "len(counts)",
        "modulo": f" % {split.steps // split.epochs}" * several,
        "reference": "plain(input_ids=x, use_cache=False)" if flags["lm"] else f"plain(x{used})",
        "lm_class": "Llama" if cell.model == "llama" else "Qwen2",
        "tie": str(cell.model == "qwen2"),
        "windows": repr(list(split.windows)),
    }
