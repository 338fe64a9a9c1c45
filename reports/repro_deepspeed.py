"""The standalone script of a DeepSpeed cell: a template of which a cell takes only the lines that it needs.

In float32 the script's reference is float64 autograd over the whole batch. In half precision it is plain PyTorch in
that dtype, micro-batch by micro-batch, summed in float64: the model's own rounding (0.3 to 2 %) would hide an error
of the step. The functions below the template say when a line is needed and what its values are.
"""

from __future__ import annotations

from textwrap import indent

from truestep.fixtures.cell import FLAGGED, Cell, deal, order
from truestep.fixtures.drivers import deepspeed as driver
from truestep.reports.template import Flags, Values, dictionary, needed, product, take

_HEAD = r'''
                 |"""DeepSpeed $version: $id
                 |
                 |Compares the gradient that the optimizer consumed with $right.
                 |Run: python this_file.py ($packages). Exit code: 1 wrong, 0 right, 2 refused."""
                 |import $modules
folder           |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
ranks            |rank = $fork  # this process is rank 0, its children are the others
ranks            |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
!ranks           |os.environ.update(DS_ACCELERATOR="$accelerator", MASTER_ADDR="localhost", MASTER_PORT="0")
!ranks           |os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
ranks            |os.environ.update(DS_ACCELERATOR="$accelerator", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="$W", LOCAL_SIZE="$W")
                 |import deepspeed, torch
apis             |from deepspeed.utils import $apis
language         |from transformers import ${lm}Config, ${lm}ForCausalLM
                 |
adam             |LR, BETA1, BETA2, EPS, DECAY = $adam
                 |$config
'''
_MODEL = r"""
                 |class Net($base):
!output          |    def forward(self, $inputs, y, w):  # w: the weight of every token in the loss of the whole batch
output           |    def forward(self, $inputs):
unused           |        h = torch.tanh(self[0](x))
unused           |        if used.any():  # some micro-batches leave self[1] out
unused           |            h = h + used[:, None, None].to(h.dtype) * torch.tanh(self[1](h))
output           |        return {"logits": $logits}
output           |
output           |def loss_of(output, y, w):  # w: the weight of every token in the loss of the whole batch
language output  |    logits = output["logits"]$up
output           |    return $total
language !output |        logits = super().forward(input_ids=x, use_cache=False).logits$up
both !language   |        logits = $logits
both             |        return {"loss": $total, "logits": logits}
!output !both    |        return $total
"""
_HELPERS = r"""
                 |def flat(tensors):
                 |    return torch.cat([t.detach().double()$to.flatten() for t in tensors])
                 |
unused           |def gradient_of(loss):
unused           |    return flat(torch.autograd.grad(loss, ours, materialize_grads=True))
unused           |
unknown          |def read(key=None):  # the master copy or a state; safe_get_* does not know FP16_UnfusedOptimizer
unknown          |    if hasattr(engine.optimizer, "fp32_groups"):
unknown          |        return flat(engine.optimizer.state[p][key] if key else p for p in engine.optimizer.fp32_groups[0])
unknown          |    return flat(safe_get_full_optimizer_state(p, key) if key else safe_get_full_fp32_param(p) for p in theirs)
unknown          |
stage3           |def gathered(p):  # one by one: all at once, gloo may show garbage up to 0.19.7
stage3           |    with deepspeed.zero.GatheredParameters([p]):
stage3           |        return p.detach().clone()
stage3           |
reload           |def start(net):
reload           |    theirs = $theirs
reload           |    optimizer = $optimizer
reload           |    return theirs, deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
reload           |
                 |def check(what, got, want, limit=$limit):  # relative error of the worst parameter; tiny ones against all
                 |    pairs = zip(*(vector.split([p.numel() for p in ours]) for vector in (got, want)))
                 |    error = torch.stack([(a - b).norm() / max(b.norm(), want.norm() / 64) for a, b in pairs]).max().item()
                 |    print(f"{what} is off by {error:.3g}" + ("" if error <= limit else "  <- WRONG"))
                 |    return not error <= limit
                 |
                 |def refuse(kind, error, trace):
                 |    print("REFUSED by deepspeed", deepspeed.__version__, kind.__name__, error, flush=True$file)
                 |    os._exit(2)
"""
_START = r"""
                 |sys.excepthook = refuse
                 |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
ranks            |torch.distributed.init_process_group("$backend", f"file://{folder.name}/store", rank=rank, world_size=$W)
                 |torch.manual_seed($seed)
tied             |a, b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
tied             |b.weight = a.weight
reused           |a = torch.nn.Linear(8, 8)
                 |net = $net
frozen           |net[0].weight.requires_grad_(False)
                 |$reference = copy.deepcopy(net).$copied()
reload           |theirs, engine = start(net)
reload           |ours = $ours  # parameters of the reference
!reload          |theirs, ours = $theirs, $ours$whose
!reload          |optimizer = $optimizer
!reload          |engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
several          |before, old = $master, 0.0
kept !several    |before = $master
kept !bare       |wrong = check("before any step: $api", $rounded_before, flat(ours), 0)
!kept !bare      |wrong = check("before any step: $api", $master, flat(ours), 0)
bare             |wrong = False
several !varying |parts = $parts  # the samples of each micro-batch
"""
_STEP = r"""
reload           |if step == 2:  # save, rebuild from older weights, load
reload           |    engine.save_checkpoint(folder.name, tag="one")
reload           |    engine.destroy()
reload           |    theirs, engine = start(copy.deepcopy($reference).float())
reload           |    engine.load_checkpoint(folder.name, tag="one")
reload !bare     |    wrong |= check("step 2: the master copy loaded", $master, before, 0)
reload           |    wrong |= check("step 2: what forward loaded", $forward, $rounded_before, 0)
language equal   |ids = torch.randint(0, 32, (16, 7))$to
language !equal  |ids, lengths = torch.randint(0, 32, (16, $longer))$to, torch.randint(1, 7, (16, 1))
mlp !equal       |lengths = torch.randint(1, 7, (16, 1))  # of the samples
                 |x, y, w = $x, $y, $weight
unused           |used = torch.isin(torch.arange(16), torch.tensor($used))$to  # through net[1]
varying          |parts = $parts
!several         |parts = $parts  # the samples of each micro-batch
resize           |engine.set_train_batch_size($resized)
                 |$loop
                 |after = $master
adam             |m, v = $moments
adam several     |got = (m - BETA1 * old) / (1 - BETA1)  # m = BETA1 * old + (1 - BETA1) * gradient
adam !several    |got = m / (1 - BETA1)  # m = (1 - BETA1) * gradient
!adam several    |buffer = $momentum
!adam several    |got = buffer - $decay * old  # buffer = $decay * old + gradient
!adam !several   |got = $momentum  # of the first step: the gradient
several          |torch.nn.utils.vector_to_parameters($low_before, ours)
                 |each = [$gradient_of$part_loss$end for rows in parts]
half             |want = sum(each)
!half            |want = $gradient_of$whole_loss$end  # the whole batch at once
clip             |factor = min(1.0, $max_norm / (want.norm().item() + 1e-6))
!clip            |weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got).round(decimals=$places) + 0.0).tolist()  # least squares
clip             |weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got / factor).round(decimals=$places) + 0.0).tolist()
                 |print(f"${at}effective weights of the micro-batches: {weights}\n{'expected: ':>$width} {[1.0] * len(parts)}")
                 |wrong |= check(${f}"${at}the gradient consumed", got, $clipped)
!bare            |wrong |= check(${f}"${at}the reported norm", want / want.norm() * engine.get_global_grad_norm(), want)
read             |wrong |= check(${f}"${at}safe_get_full_grad", grads, want, $reading_limit)
adam             |right = $before * (1 - LR * DECAY) - LR * m / (1 - BETA1$power) / ((v / (1 - BETA2$power)).sqrt() + EPS)
adam             |wrong |= check(${f}"${at}the update", after, right$tight)
!adam several    |wrong |= check(${f}"${at}the update", after, $before - $lr * buffer$tight)
!adam !several   |wrong |= check(${f}"${at}the update", after, $before - $lr * got$tight)
!bare            |wrong |= check(${f}"${at}what forward uses", $forward, $rounded_after, 0)
several adam     |before, old = after, m
several !adam    |before, old = after, buffer
"""
_END = r"""
ranks            |everyone = [None] * $W
ranks            |torch.distributed.all_gather_object(everyone, (wrong, $forward))
ranks !more      |wrong = any(w for w, _ in everyone) | check("rank 1, against rank 0,", everyone[1][1], everyone[0][1], 0)
more             |wrong = any(w for w, _ in everyone)
more             |for other in range(1, $W):
more             |    wrong |= check(f"rank {other}, against rank 0,", everyone[other][1], everyone[0][1], 0)
                 |print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__, flush=True)
folder           |folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
!folder          |os._exit(int(wrong))
"""

_LM = {"llama": "Llama", "qwen2": "Qwen2"}
#: the layers of a torch.nn.Sequential; a and b share something
_LAYERS = {
    "": "torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "tied": "torch.nn.Linear(6, 8), torch.nn.Tanh(), a, torch.nn.Tanh(), b, torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "reused": "torch.nn.Linear(6, 8), torch.nn.Tanh(), a, torch.nn.Tanh(), a, torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "unused": "torch.nn.Linear(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)",
}
_LOW = {"fp32": "", "bf16": "bfloat16", "fp16": "half"}
_LONGEST = 80  # lines of a script that has blank lines between its functions


def script(cell: Cell) -> str:
    """The source of the script."""
    flags = _flags(cell)
    values = _words(cell, flags) | _config(cell) | _model(cell, flags) | _held(cell, flags) | _batch(cell, flags)
    head, model, helpers, start, step, end = (
        take(part, flags, values) for part in (_HEAD, _MODEL, _HELPERS, _START, _STEP, _END)
    )
    if flags["several"]:
        step = f"for {values['steps']}:\n{indent(step, '    ')}"
    lines = f"{head}\n{model}\n{helpers}{start}{step}{end}".splitlines(keepends=True)
    if len(lines) > _LONGEST:
        lines = [line for line in lines if line.strip()]
    return "".join(lines)


def _flags(cell: Cell) -> Flags:
    f, windows, variant = cell.facts(), cell.split.windows, cell.model.partition("_")[2]
    half, several, varying = f["dtype"] != "fp32", len(windows) > 1, len(set(windows)) > 1
    ranks, reload, language = cell.split.world_size > 1, f["checkpoint"] == "reload", cell.model in _LM
    bare = f["stage"] == 0 and not half  # the optimizer updates the parameters themselves: no copy, no norm
    return {
        "bare": bare,
        "half": half,
        "stage3": f["stage"] == 3,
        # In some releases the optimizer of these is one that the reading APIs do not know.
        "unknown": half and (f["stage"] == 0 or (f["stage"] == 1 and f["grad_accum_dtype"] == "fp32")),
        "ranks": ranks,
        "more": cell.split.world_size > 2,
        "several": several,
        "varying": varying,
        "resize": varying and f["accumulate"] == "managed",
        "kept": half or several,  # else the weights before the step are those of the reference
        "adam": f["optimizer"] != "sgd",
        "clip": f["clipping"] == "tight",
        "read": f["read"] == "grad",
        "apis": not bare or f["read"] == "grad",
        "reload": reload,
        "folder": ranks or reload,  # where ranks meet and a checkpoint goes
        "output": f["returns"] == "output",
        "both": f["returns"] == "both",
        "language": language,
        "mlp": not language,
        "equal": cell.batch == "equal",
        **{name: variant == name for name in ("frozen", "tied", "reused", "unused")},
    }


def _words(cell: Cell, flags: Flags) -> Values:
    """Names, modules, labels, limits."""
    f, ranks, steps, half = cell.facts(), cell.split.world_size, cell.split.steps, flags["half"]
    apis = {
        "safe_get_full_fp32_param": not flags["bare"],
        "safe_get_full_grad": flags["read"],
        "safe_get_full_optimizer_state": not flags["bare"],
    }
    modules = {"contextlib": f["accumulate"] == "no_sync", "copy": True, "os": True, "sys": True, "tempfile": flags["folder"]}
    packages = {"deepspeed": True, "torch": True, "transformers": flags["language"]}
    return {
        "version": driver.version() or "?",
        "id": cell.id,
        "right": f"plain PyTorch in {f['dtype']}" if half else "float64 autograd over the whole batch",
        "packages": ", ".join(needed(packages)) + "; CPU" * (cell.device == "cpu"),
        "modules": ", ".join(needed(modules)),
        "apis": ", ".join(needed(apis)),
        "accelerator": cell.device,
        "backend": "gloo" if cell.device == "cpu" else "nccl",
        "W": str(ranks),
        "fork": "int(os.fork() == 0)" if ranks == 2 else f"next((r for r in range(1, {ranks}) if os.fork() == 0), 0)",
        "file": ", file=sys.__stdout__" * (ranks > 1),
        "steps": f"step, K in enumerate({list(cell.split.windows)}, 1)"
        if flags["varying"]
        else f"step in range(1, {steps + 1})",
        "f": "f" * (steps > 1),
        "at": "step {step}: " * (steps > 1),
        "width": str(len("effective weights of the micro-batches:") + len("step 1: ") * (steps > 1)),
        "power": "**step" * (steps > 1),
        "places": "2" if half else "3",
        # twice where DeepSpeed rounds half-precision gradients on another path than a plain loop does
        "limit": ("2e-2" if driver.rerounds(cell) else "1e-2") if half else "4e-6",
        "tight": ", 1e-5" * half,  # an update is made in float32
        "reading_limit": "2e-2" if half else "1e-4",
    }


def _config(cell: Cell) -> Values:
    """DeepSpeed's configuration, without what makes no difference to so small a model, and its optimizer."""
    config, f, sgd, adam = driver.config_of(cell, _largest(cell), cell.split.windows[0]), cell.facts(), driver.SGD, driver.ADAM
    zero = config.pop("zero_optimization")
    for name in ("stage3_max_live_parameters", "stage3_max_reuse_distance", "sub_group_size"):
        zero.pop(name, None)
    if f["bucket"] == "large":
        zero.pop("allgather_bucket_size")
        zero.pop("stage3_prefetch_bucket_size", None)
    del config["steps_per_print"]
    if f["stage"] == 0 or f["optimizer"] != "sgd":
        del config["zero_allow_untested_optimizer"]
    if f["offload_optimizer"] == "none" or f["optimizer"] == "cpu_adam":
        del config["zero_force_ds_cpu_optimizer"]
    if config["gradient_accumulation_steps"] == 1:
        del config["gradient_accumulation_steps"]
    if f["stage"]:
        config["zero_optimization"] = zero
    settings = "lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY"
    optimizers = {
        "sgd": f"torch.optim.SGD(theirs, lr={sgd['lr']}, momentum={sgd['momentum']})",
        "adam": f"torch.optim.AdamW(theirs, {settings})",
        "cpu_adam": f"deepspeed.ops.adam.DeepSpeedCPUAdam(theirs, {settings})",
    }
    return {
        "config": dictionary("CONFIG = {", config, 120),
        "optimizer": optimizers[f["optimizer"]],
        "lr": repr(sgd["lr"]),
        "decay": repr(sgd["momentum"]),
        "adam": ", ".join(map(repr, (adam["lr"], *adam["betas"], adam["eps"], adam["weight_decay"]))),
        "max_norm": repr(driver.MAX_NORM[f["clipping"]]),
        "resized": product(config["train_micro_batch_size_per_gpu"], "K", cell.split.world_size),
    }


def _largest(cell: Cell) -> int:
    """Elements of the largest parameter of the script's model, which buckets are measured against."""
    return 512 if cell.model in _LM else {"mlp": 48, "mlp_frozen": 48}.get(cell.model, 64)


def _model(cell: Cell, flags: Flags) -> Values:
    """The model and the loss inside or outside of it."""
    up, m = ".float()" * flags["half"], cell.model
    if flags["language"]:
        logits = "super().forward(input_ids=x, use_cache=False).logits"
        total = '(torch.nn.functional.cross_entropy(logits.mT, y, reduction="none") * w).sum()'
        net = (f"Net({_LM[m]}Config(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,\n"
               "    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.25,"
               f" tie_word_embeddings={m == 'qwen2'}))")  # fmt: skip
    else:
        logits = "self[2](h)" if flags["unused"] else "super().forward(x)"
        seen = 'output["logits"]' if flags["output"] else "logits" if flags["both"] else logits
        total = f"((({seen}{up} - y) ** 2).sum(-1) * w).sum()"
        variant = m.partition("_")[2]
        net = f"Net({_LAYERS.get(variant, _LAYERS[''])})"
    return {
        "base": f"{_LM[m]}ForCausalLM" if flags["language"] else "torch.nn.Sequential",
        "lm": _LM.get(m, ""),
        "inputs": "x, used" if flags["unused"] else "x",
        "up": up,
        "logits": logits,
        "total": total,
        "net": net + _to(cell),
        "seed": str(cell.seed + 1),
    }


def _held(cell: Cell, flags: Flags) -> Values:
    """What DeepSpeed holds and what it is compared with, as vectors over the parameters ``theirs`` and ``ours``."""
    half, low = flags["half"], _LOW[cell.knob("dtype")]
    reference = "plain" if half else "exact"

    def trained(net: str) -> str:
        return f"[p for p in {net}.parameters() if p.requires_grad]" if flags["frozen"] else f"list({net}.parameters())"

    if flags["unknown"]:
        master, momentum, moments = "read()", 'read("momentum_buffer")', 'read("exp_avg"), read("exp_avg_sq")'
    else:
        master = "flat(theirs)" if flags["bare"] else "flat(map(safe_get_full_fp32_param, theirs))"
        state = "engine.optimizer.state[p][{}]" if flags["bare"] else "safe_get_full_optimizer_state(p, {})"
        momentum = "flat(" + state.format('"momentum_buffer"') + " for p in theirs)"
        moments = "(flat(" + state.format("key") + ' for p in theirs) for key in ("exp_avg", "exp_avg_sq"))'
    return {
        "to": _to(cell),
        "reference": reference,
        "copied": low or "double",
        "theirs": trained("net"),
        "ours": trained(reference),
        "whose": "" if flags["frozen"] else "  # DeepSpeed's and the reference's",
        "api": "the master copy" if flags["unknown"] else "safe_get_full_fp32_param",
        "master": master,
        "momentum": momentum,
        "moments": moments,
        "forward": "flat(map(gathered, theirs))" if flags["stage3"] else "flat(theirs)",
        "before": "before" if flags["kept"] else "flat(ours)",
        "low_before": f"before.{low}()" if half else "before",
        "rounded_before": f"before.{low}().double()" if half else "before",
        "rounded_after": f"after.{low}().double()" if half else "after",
        "clipped": "factor * want" if flags["clip"] else "want",
        "gradient_of": "gradient_of(" if flags["unused"] else "flat(torch.autograd.grad(",
        "end": ")" if flags["unused"] else ", ours))",
        "part_loss": _loss(flags, reference, double=not half),
        "whole_loss": _loss(flags, reference, rows="", double=not half),
    }


def _batch(cell: Cell, flags: Flags) -> Values:
    """Samples, the weight of every token, how micro-batches are dealt and the loop over them."""
    to, low, split = _to(cell), f".{_LOW[cell.knob('dtype')]}()" * flags["half"], cell.split
    positions = 9 if cell.batch == "padded" else 6  # samples have up to 6
    x, y = f"torch.randn(16, {positions}, 6){low}{to}", f"2 * torch.randn(16, {positions}, 5){to}"
    if flags["language"]:
        x, y = "ids[:, :-1]", "ids[:, 1:]"
    total = {"token_mean": "lengths.sum()", "sequence_mean": "(16 * lengths)"}[cell.objective]
    weight = "torch.full((16, 6), 1 / 96)" if flags["equal"] else f"(torch.arange({positions}) < lengths) / {total}"
    parts = f"tensor_split({product(_window(cell), split.world_size)})"
    if split.uneven:
        sizes = {k: [len(rank[i]) for i in range(k) for rank in deal(split, step)] for step, k in enumerate(split.windows)}
        parts = f"split({sizes}[K])" if flags["varying"] else f"split({sizes[split.windows[0]]})"
    return {
        "longer": str(positions + 1),
        "x": x,
        "y": y,
        "weight": f"({weight}){to}" if to else weight,
        "used": repr([row for row, sample in enumerate(order(cell.batch, cell.seed)) if sample in FLAGGED]),
        "parts": f"torch.arange(16).{parts}",
        "loop": _loop(cell, flags),
    }


def _to(cell: Cell) -> str:
    return ".cuda()" if cell.device == "cuda" else ""


def _window(cell: Cell) -> str:
    """The micro-batches of a step on one rank: a number, or ``K`` where it varies."""
    return "K" if len(set(cell.split.windows)) > 1 else str(cell.split.windows[0])


def _loss(flags: Flags, net: str, rows: str = "[rows]", double: bool = False, scale: str = "1") -> str:
    """The loss of these samples through that net."""
    inputs = f"x{rows}" + ".double()" * (double and not flags["language"]) + f", used{rows}" * flags["unused"]
    targets = f"y{rows}, w{rows}" + f" * {scale}" * (scale != "1")
    beside = '["loss"]' * flags["both"]
    return f"loss_of({net}({inputs}), {targets})" if flags["output"] else f"{net}({inputs}, {targets}){beside}"


def _loop(cell: Cell, flags: Flags) -> str:
    """The micro-batches of one optimizer step."""
    f, K, ranks = cell.facts(), _window(cell), cell.split.world_size
    last = "K - 1" if K == "K" else str(int(K) - 1)
    divided = K != "1" and f["backward"] != "unscaled" and f["accumulate"] in ("managed", "boundary_k")
    why = ", ".join(needed({f"divides by {K}": divided, f"averages over {ranks} ranks": ranks > 1}))
    loss = _loss(flags, "engine", scale=product(K if divided else 1, ranks)) + (f"  # backward {why}" if why else "")
    by_hand, no_sync = f["accumulate"] in ("boundary", "boundary_k"), f["accumulate"] == "no_sync"
    lines = needed({
        f"engine.set_gradient_accumulation_boundary(k == {last})": by_hand,
        f"loss = {loss}": True,
        "engine.backward(loss)": f["backward"] == "engine",
        "engine.backward(loss, scale_wrt_gas=False)": f["backward"] == "unscaled",
        "loss.backward()": f["backward"] == "torch",
    })  # fmt: skip
    if no_sync:
        lines = [f"with engine.no_sync() if k < {last} else contextlib.nullcontext():", *_indented(lines)]
    if flags["read"]:
        lines += [f"if k == {last}:", "    grads = flat(map(safe_get_full_grad, theirs))"]
    if f["accumulate"] == "managed":
        lines.append("engine.step()")
    mine = f"parts[rank::{ranks}]" if ranks > 1 else "parts"
    numbered = by_hand or no_sync or flags["read"]
    loop = [f"for k, rows in enumerate({mine}):" if numbered else f"for rows in {mine}:", *_indented(lines)]
    if f["accumulate"] == "coalesce":
        loop = ["with engine.coalesce_grad_reduction():", *_indented(loop)]
    if f["accumulate"] != "managed":
        loop.append("engine.step()")
    return "\n".join(loop)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
