"""The standalone script of a DeepSpeed cell: a template of which a cell takes only the lines that it needs.

A line of the template is ``conditions | source``: every condition must hold (``!`` negates one), and ``$name`` stands
for a value. In float32 the script's reference is float64 autograd over the whole batch. In half precision it is plain
PyTorch in that dtype, micro-batch by micro-batch, summed in float64: the model's own rounding (0.3 to 2 %) would hide
an error of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import Template
from textwrap import indent
from typing import Any

from truestep.fixtures.cell import Cell, deal
from truestep.fixtures.drivers import deepspeed as driver

_HEAD = r'''
               |"""DeepSpeed $version: $id
               |
               |Compares the gradient that the optimizer consumed with $right.
               |Run: python this_file.py ($packages). Exit code: 1 wrong, 0 right, 2 refused."""
               |import $modules
folder         |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
ranks          |rank = $fork  # this process is rank 0, its children are the others
ranks          |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
!ranks         |os.environ.update(DS_ACCELERATOR="$accelerator", MASTER_ADDR="localhost", MASTER_PORT="0")
!ranks         |os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
ranks          |os.environ.update(DS_ACCELERATOR="$accelerator", RANK=$rank, LOCAL_RANK=$rank, WORLD_SIZE="$W", LOCAL_SIZE="$W")
               |import deepspeed, torch
apis           |from deepspeed.utils import $apis
cpu_adam       |from deepspeed.ops.adam import DeepSpeedCPUAdam
language       |from transformers import ${lm}Config, ${lm}ForCausalLM
               |
adam           |LR, BETA1, BETA2, EPS, DECAY = $adam
               |$config
'''
_MODEL = r'''
               |class Net($base):
!output        |    def forward(self, $inputs, y, w):  # w: the weight of every token in the loss of the whole batch
output         |    def forward(self, $inputs):
unused         |        h = torch.tanh(self[0](x))
unused         |        if used.any():  # some micro-batches leave self[1] out
unused         |            h = h + used[:, None, None].to(h.dtype) * torch.tanh(self[1](h))
output         |        return {"logits": $logits}
output         |
output         |def loss_of(output, y, w):  # w: the weight of every token in the loss of the whole batch
language output|    logits = output["logits"]$up
output         |    return $total
language !output|        logits = super().forward(input_ids=x, use_cache=False).logits$up
!output        |        return $total
'''
_HELPERS = r'''
               |def flat(tensors):
               |    return torch.cat([t.detach().double()$to.flatten() for t in tensors])
               |
unused         |def gradient_of(loss):
unused         |    return flat(torch.autograd.grad(loss, ours, materialize_grads=True))
unused         |
unknown        |def read(key=None):  # the master copy or a state; safe_get_* does not know FP16_UnfusedOptimizer
unknown        |    if hasattr(engine.optimizer, "fp32_groups"):
unknown        |        return flat(engine.optimizer.state[p][key] if key else p for p in engine.optimizer.fp32_groups[0])
unknown        |    return flat(safe_get_full_optimizer_state(p, key) if key else safe_get_full_fp32_param(p) for p in theirs)
unknown        |
stage3         |def gathered(p):  # one by one: all at once, gloo may show garbage up to 0.19.7
stage3         |    with deepspeed.zero.GatheredParameters([p]):
stage3         |        return p.detach().clone()
stage3         |
reload         |def start(net):
reload         |    theirs = $theirs
reload         |    optimizer = $optimizer
reload         |    return theirs, deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
reload         |
               |def check(what, got, want, limit=$limit):  # relative error of the worst parameter; tiny ones against all
               |    pairs = zip(*(vector.split([p.numel() for p in ours]) for vector in (got, want)))
               |    error = torch.stack([(a - b).norm() / max(b.norm(), want.norm() / 64) for a, b in pairs]).max().item()
               |    print(f"{what} is off by {error:.3g}" + ("" if error <= limit else "  <- WRONG"))
               |    return not error <= limit
               |
               |def refuse(kind, error, trace):
               |    print("REFUSED by deepspeed", deepspeed.__version__, kind.__name__, error, flush=True$file)
               |    os._exit(2)
'''
_START = r'''
               |sys.excepthook = refuse
               |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
ranks          |torch.distributed.init_process_group("$backend", f"file://{folder.name}/store", rank=rank, world_size=$W)
               |torch.manual_seed($seed)
tied           |a, b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
tied           |b.weight = a.weight
reused         |a = torch.nn.Linear(8, 8)
               |net = $net
frozen         |net[0].weight.requires_grad_(False)
               |$reference = copy.deepcopy(net).$copied()
reload         |theirs, engine = start(net)
reload         |ours = $ours
!reload        |theirs, ours = $theirs, $ours
!reload        |optimizer = $optimizer
!reload        |engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG)[0]
several        |before, old = $master, 0.0
kept !several  |before = $master
kept !bare     |wrong = check("before any step: $api", $rounded_before, flat(ours), 0)
!kept !bare    |wrong = check("before any step: $api", $master, flat(ours), 0)
bare           |wrong = False
several !varying|parts = $parts  # the samples of each micro-batch
'''
_STEP = r'''
reload         |if step == 2:  # save, rebuild from older weights, load
reload         |    engine.save_checkpoint(folder.name, tag="one")
reload         |    engine.destroy()
reload         |    theirs, engine = start(copy.deepcopy($reference).float())
reload         |    engine.load_checkpoint(folder.name, tag="one")
reload !bare   |    wrong |= check("step 2: the master copy loaded", $master, before, 0)
reload         |    wrong |= check("step 2: what forward loaded", $forward, $rounded_before, 0)
language equal |ids = torch.randint(0, 32, (16, 7))$to
language !equal|ids, lengths = torch.randint(0, 32, (16, 7))$to, torch.randint(1, 7, (16, 1))
mlp !equal     |lengths = torch.randint(1, 7, (16, 1))  # of the samples
               |x, y, w = $x, $y, $weight
unused         |used = torch.arange(16)$to // 4 % 2 == 0  # the samples that pass through net[1]
varying        |parts = $parts
!several       |parts = $parts  # the samples of each micro-batch
resize         |engine.set_train_batch_size($resized)
               |$loop
               |after = $master
adam           |m, v = $moments
adam several   |got = (m - BETA1 * old) / (1 - BETA1)
adam !several  |got = m / (1 - BETA1)
!adam several  |buffer = $buffer
!adam several  |got = buffer - $decay * old
!adam !several |got = $buffer  # after one step
several        |torch.nn.utils.vector_to_parameters($rounded_before_raw, ours)
               |each = [$gradient_of$part_loss$end for rows in parts]
half           |want = sum(each)
!half          |want = $gradient_of$whole_loss$end
clip           |factor = min(1.0, $max_norm / (want.norm().item() + 1e-6))
               |weights = ((torch.linalg.pinv(torch.stack(each, 1)) @ got$unclipped).round(decimals=$places) + 0.0).tolist()
               |print(f"${at}effective weights of the micro-batches: {weights}\n{'expected: ':>$width} {[1.0] * len(parts)}")
               |wrong |= check(${f}"${at}the gradient consumed", got, $clipped)
!bare          |wrong |= check(${f}"${at}the reported norm", want / want.norm() * engine.get_global_grad_norm(), want)
read           |wrong |= check(${f}"${at}safe_get_full_grad", read, want, $reading_limit)
adam           |right = $before * (1 - LR * DECAY) - LR * m / (1 - BETA1$power) / ((v / (1 - BETA2$power)).sqrt() + EPS)
adam           |wrong |= check(${f}"${at}the update", after, right$tight)
!adam several  |wrong |= check(${f}"${at}the update", after, $before - $lr * buffer$tight)
!adam !several |wrong |= check(${f}"${at}the update", after, $before - $lr * got$tight)
!bare          |wrong |= check(${f}"${at}what forward computes with", $forward, $rounded_after, 0)
several adam   |before, old = after, m
several !adam  |before, old = after, buffer
'''
_END = r'''
ranks          |everyone = [None] * $W
ranks          |torch.distributed.all_gather_object(everyone, (wrong, $forward))
ranks !more    |wrong = any(w for w, _ in everyone) | check("rank 1, against rank 0,", everyone[1][1], everyone[0][1], 0)
more           |wrong = any(w for w, _ in everyone)
more           |for other in range(1, $W):
more           |    wrong |= check(f"rank {other}, against rank 0,", everyone[other][1], everyone[0][1], 0)
               |print("WRONG" if wrong else "RIGHT", "with deepspeed", deepspeed.__version__)
               |sys.exit(int(wrong))
'''

_LM = {"llama": "Llama", "qwen2": "Qwen2"}
#: the layers of a torch.nn.Sequential; a and b share something
_LAYERS = {
    "": "torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "tied": "torch.nn.Linear(6, 8), torch.nn.Tanh(), a, torch.nn.Tanh(), b, torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "reused": "torch.nn.Linear(6, 8), torch.nn.Tanh(), a, torch.nn.Tanh(), a, torch.nn.Tanh(), torch.nn.Linear(8, 5)",
    "unused": "torch.nn.Linear(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)",
}
_LOW = {"fp32": "", "bf16": "bfloat16", "fp16": "half"}
_WIDTH = 118
_LONGEST = 80  # lines of a script that has blank lines between its functions

Flags = dict[str, bool]
Values = dict[str, str]


def script(cell: Cell) -> str:
    """The source of the script."""
    flags = _flags(cell)
    values = _words(cell, flags) | _config(cell) | _model(cell, flags) | _readings(cell, flags) | _batch(cell, flags)
    values |= {"loop": _loop(cell, flags)}
    head, model, helpers, begin, step, end = (
        _take(part, flags, values) for part in (_HEAD, _MODEL, _HELPERS, _START, _STEP, _END)
    )
    if flags["several"]:
        step = f"for {values['steps']}:\n{indent(step, '    ')}"
    lines = f"{head}\n{model}\n{helpers}{begin}{step}{end}".splitlines(keepends=True)
    if len(lines) > _LONGEST:
        lines = [line for line in lines if line.strip()]
    return "".join(lines)


def _take(template: str, flags: Flags, values: Values) -> str:
    """The lines of the template whose conditions hold, with the values filled in."""
    lines = []
    for line in template.strip("\n").splitlines():
        conditions, _, source = line.partition("|")
        if all(flags[name.removeprefix("!")] != name.startswith("!") for name in conditions.split()):
            lines.append(Template(source).substitute(values))
    return "".join(f"{line}\n" for line in lines)


def _flags(cell: Cell) -> Flags:
    f, windows = cell.facts(), cell.split.windows
    half, stage, variant = f["dtype"] != "fp32", f["stage"], cell.model.partition("_")[2]
    bare = stage == 0 and not half  # the optimizer updates the parameters themselves: no copy, no reading API, no norm
    several, ranks, reload = len(windows) > 1, cell.split.world_size > 1, f["checkpoint"] == "reload"
    return {
        "bare": bare,
        "half": half,
        "stage3": stage == 3,
        # In some releases the optimizer of these is one that the reading APIs do not know.
        "unknown": half and (stage == 0 or (stage == 1 and f["grad_accum_dtype"] == "fp32")),
        "ranks": ranks,
        "more": cell.split.world_size > 2,
        "several": several,
        "varying": len(set(windows)) > 1,
        "resize": len(set(windows)) > 1 and f["accumulate"] == "managed",
        "kept": half or several,  # else the weights before the step are those of the reference
        "adam": f["optimizer"] != "sgd",
        "cpu_adam": f["optimizer"] == "cpu_adam",
        "clip": f["clipping"] == "tight",
        "read": f["read"] == "grad",
        "apis": not bare or f["read"] == "grad",
        "reload": reload,
        "folder": ranks or reload,  # where ranks meet and a checkpoint goes
        "output": f["returns"] == "output",
        "language": cell.model in _LM,
        "mlp": cell.model not in _LM,
        "equal": cell.batch == "equal",
        "frozen": variant == "frozen",
        "tied": variant == "tied",
        "reused": variant == "reused",
        "unused": variant == "unused",
    }


def _words(cell: Cell, flags: Flags) -> Values:
    """What is said: names, modules, labels."""
    f, ranks, steps, K = cell.facts(), cell.split.world_size, cell.split.steps, _window(cell)
    apis = {"safe_get_full_fp32_param": not flags["bare"], "safe_get_full_grad": flags["read"]}
    apis["safe_get_full_optimizer_state"] = not flags["bare"]
    modules = {"contextlib": f["accumulate"] == "no_sync", "copy": True, "os": True, "sys": True, "tempfile": flags["folder"]}
    return {
        "version": driver.version() or "?",
        "id": cell.id,
        "right": f"plain PyTorch in {f['dtype']}" if flags["half"] else "float64 autograd over the whole batch",
        "packages": "deepspeed, torch" + ", transformers" * flags["language"] + "; CPU" * (cell.device == "cpu"),
        "modules": ", ".join(name for name, needed in modules.items() if needed),
        "apis": ", ".join(name for name, needed in apis.items() if needed),
        "W": str(ranks),
        "rank": "str(rank)" if ranks > 1 else '"0"',
        "fork": "int(os.fork() == 0)" if ranks == 2 else f"next((r for r in range(1, {ranks}) if os.fork() == 0), 0)",
        "file": ", file=sys.__stdout__" * (ranks > 1),
        "accelerator": cell.device,
        "backend": "gloo" if cell.device == "cpu" else "nccl",
        "steps": f"step, K in enumerate({list(cell.split.windows)}, 1)" if K == "K" else f"step in range(1, {steps + 1})",
        "f": "f" * (steps > 1),
        "at": "step {step}: " * (steps > 1),
        "width": str(39 + len("step 1: ") * (steps > 1)),
        "power": "**step" * (steps > 1),
        "places": "2" if flags["half"] else "3",
        "limit": "1e-2" if flags["half"] else "4e-6",
        "tight": ", 1e-5" * flags["half"],  # an update is made in float32
        "reading_limit": "2e-2" if flags["half"] else "1e-4",
    }


def _config(cell: Cell) -> Values:
    """DeepSpeed's configuration, without what leaves so small a model as it is."""
    config, f, adam = driver.config_of(cell, _largest(cell), cell.split.windows[0]), cell.facts(), driver.ADAM
    zero = config.pop("zero_optimization")
    if f["bucket"] == "large":
        zero.pop("allgather_bucket_size")
        zero.pop("stage3_prefetch_bucket_size", None)
    for name in ("stage3_max_live_parameters", "stage3_max_reuse_distance", "sub_group_size"):
        zero.pop(name, None)
    if f["stage"]:
        config["zero_optimization"] = zero
    del config["steps_per_print"]
    if f["stage"] == 0 or f["optimizer"] != "sgd":
        del config["zero_allow_untested_optimizer"]
    if f["offload_optimizer"] == "none" or f["optimizer"] == "cpu_adam":
        del config["zero_force_ds_cpu_optimizer"]
    if config["gradient_accumulation_steps"] == 1:
        del config["gradient_accumulation_steps"]
    max_norm = driver.MAX_NORM[f["clipping"]]
    return {
        "config": _packed("CONFIG = {", config),
        "lr": repr(driver.SGD["lr"]),
        "decay": repr(driver.SGD["momentum"]),
        "adam": ", ".join(map(repr, (adam["lr"], *adam["betas"], adam["eps"], adam["weight_decay"]))),
        "max_norm": repr(max_norm),
        "resized": _product(config["train_micro_batch_size_per_gpu"], "K", cell.split.world_size),
    }


def _packed(opening: str, config: dict[str, Any]) -> str:
    """The dictionary as source text, as many items on a line as fit."""
    lines = [opening]
    for item in _items(config, "}"):
        if len(lines[-1]) + len(item) > _WIDTH:
            lines.append(" " * len(opening) + item)
        else:
            lines[-1] += item if lines[-1] == opening else f" {item}"
    return "\n".join(lines)


def _items(config: dict[str, Any], end: str) -> Iterator[str]:
    """``"key": value,`` one by one; ``end`` closes the last of them."""
    for i, (key, value) in enumerate(config.items()):
        after = end if i == len(config) - 1 else ","
        if isinstance(value, dict):
            first, *rest = _items(value, "}" + after)
            yield f'"{key}": {{{first}'
            yield from rest
        else:
            yield f'"{key}": ' + (f'"{value}"' if isinstance(value, str) else repr(value)) + after


def _largest(cell: Cell) -> int:
    """Elements of the largest parameter of the script's model, which buckets are measured against."""
    return 512 if cell.model in _LM else {"mlp": 48, "mlp_frozen": 48}.get(cell.model, 64)


def _model(cell: Cell, flags: Flags) -> Values:
    up, m = ".float()" * flags["half"], cell.model
    logits = "self[2](h)" if flags["unused"] else "super().forward(x)"
    if flags["language"]:
        logits = "super().forward(input_ids=x, use_cache=False).logits"
        total = '(torch.nn.functional.cross_entropy(logits.mT, y, reduction="none") * w).sum()'
        net = (f"Net({_LM[m]}Config(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,\n"
               "    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.25,"
               f" tie_word_embeddings={m == 'qwen2'}))")  # fmt: skip
    else:
        seen = f'output["logits"]{up}' if flags["output"] else f"{logits}{up}"
        total = f"((({seen} - y) ** 2).sum(-1) * w).sum()"
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


def _readings(cell: Cell, flags: Flags) -> Values:
    """Expressions for what DeepSpeed holds, as vectors over its parameters, ``theirs``."""
    half, bare, low = flags["half"], flags["bare"], _LOW[cell.knob("dtype")]
    reference = "plain" if half else "exact"
    master = "read()" if flags["unknown"] else f"flat({'theirs' if bare else 'map(safe_get_full_fp32_param, theirs)'})"

    def state(key: str) -> str:
        if flags["unknown"]:
            return f"read({key})"
        read = f"engine.optimizer.state[p][{key}]" if bare else f"safe_get_full_optimizer_state(p, {key})"
        return f"flat({read} for p in theirs)"

    def trained(net: str) -> str:
        return f"[p for p in {net}.parameters() if p.requires_grad]" if flags["frozen"] else f"list({net}.parameters())"

    adam = "lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY"
    optimizer = {
        "sgd": f"torch.optim.SGD(theirs, lr={driver.SGD['lr']}, momentum={driver.SGD['momentum']})",
        "adam": f"torch.optim.AdamW(theirs, {adam})",
        "cpu_adam": f"DeepSpeedCPUAdam(theirs, {adam})",
    }[cell.knob("optimizer")]
    return {
        "to": _to(cell),
        "reference": reference,
        "copied": low or "double",
        "theirs": trained("net"),
        "ours": trained(reference),
        "optimizer": optimizer,
        "api": "the master copy" if flags["unknown"] else "safe_get_full_fp32_param",
        "master": master,
        "before": "before" if flags["kept"] else "flat(ours)",
        "rounded_before": f"before.{low}().double()" if half else "before",
        "rounded_before_raw": f"before.{low}()" if half else "before",
        "rounded_after": f"after.{low}().double()" if half else "after",
        "forward": "flat(map(gathered, theirs))" if flags["stage3"] else "flat(theirs)",
        "state": "exp_avg" if flags["adam"] else "momentum_buffer",
        "buffer": state('"momentum_buffer"'),
        "moments": 'read("exp_avg"), read("exp_avg_sq")' if flags["unknown"] else f'({state("key")} for key in ("exp_avg", "exp_avg_sq"))',
        "clipped": "factor * want" if flags["clip"] else "want",
        "unclipped": " / factor" * flags["clip"],
        "gradient_of": "gradient_of(" if flags["unused"] else "flat(torch.autograd.grad(",
        "end": ")" if flags["unused"] else ", ours))",
    }


def _batch(cell: Cell, flags: Flags) -> Values:
    """Samples, the weight of every token, and how micro-batches are dealt."""
    to, ragged = _to(cell), cell.batch == "ragged"
    low = f".{_LOW[cell.knob('dtype')]}()" * flags["half"]
    x, y = f"torch.randn(16, 6, 6){low}{to}", f"2 * torch.randn(16, 6, 5){to}"
    if flags["language"]:
        x, y = "ids[:, :-1]", "ids[:, 1:]"
    weight = {
        "token_mean": "(torch.arange(6) < lengths) / lengths.sum()",
        "sequence_mean": "(torch.arange(6) < lengths) / (16 * lengths)",
    }[cell.objective]
    if not ragged:
        weight = "torch.full((16, 6), 1 / 96)"
    split = cell.split
    sizes = {k: [len(rank[i]) for i in range(k) for rank in deal(split, step)] for step, k in enumerate(split.windows)}
    parts = f".tensor_split({_product(_window(cell), split.world_size)})"
    if split.uneven:
        parts = f".split({sizes}[K])" if flags["varying"] else f".split({sizes[split.windows[0]]})"
    return {
        "x": x,
        "y": y,
        "weight": f"({weight}){to}" if to else weight,
        "parts": f"torch.arange(16){parts}",
        "part_loss": _loss(flags, "plain" if flags["half"] else "exact", double=not flags["half"]),
        "whole_loss": _loss(flags, "plain" if flags["half"] else "exact", "", double=not flags["half"]),
    }


def _to(cell: Cell) -> str:
    return ".cuda()" if cell.device == "cuda" else ""


def _window(cell: Cell) -> str:
    """The micro-batches of a step on one rank: a number, or ``K`` where it varies."""
    return "K" if len(set(cell.split.windows)) > 1 else str(cell.split.windows[0])


def _product(*factors: str | int) -> str:
    """``K * 8``: a product as source text."""
    number, names = 1, []
    for factor in map(str, factors):
        if factor.isdigit():
            number *= int(factor)
        else:
            names.append(factor)
    return " * ".join([*names, *([str(number)] if number != 1 or not names else [])])


def _loss(flags: Flags, net: str, rows: str = "[rows]", double: bool = False, scale: str = "") -> str:
    """The loss of these samples through that net."""
    inputs = f"x{rows}" + ".double()" * (double and not flags["language"]) + f", used{rows}" * flags["unused"]
    targets = f"y{rows}, w{rows}{scale}"
    return f"loss_of({net}({inputs}), {targets})" if flags["output"] else f"{net}({inputs}, {targets})"


def _loop(cell: Cell, flags: Flags) -> str:
    """The micro-batches of one optimizer step."""
    f, K, ranks = cell.facts(), _window(cell), cell.split.world_size
    last = "K - 1" if K == "K" else str(int(K) - 1)
    divided = f["backward"] != "unscaled" and f["accumulate"] in ("managed", "boundary_k") and K != "1"
    scale = _product(K if divided else 1, ranks)
    why = ", ".join([f"divides by {K}"] * divided + [f"averages over {ranks} ranks"] * (ranks > 1))
    by_hand = f["accumulate"] in ("boundary", "boundary_k")
    body = {
        f"engine.set_gradient_accumulation_boundary(k == {last})": by_hand,
        f"loss = {_loss(flags, 'engine', scale=f' * {scale}' if scale != '1' else '')}" + (f"  # backward {why}" if why else ""): True,
        "engine.backward(loss)": f["backward"] == "engine",
        "engine.backward(loss, scale_wrt_gas=False)": f["backward"] == "unscaled",
        "loss.backward()": f["backward"] == "torch",
    }
    lines = [line for line, needed in body.items() if needed]
    if f["accumulate"] == "no_sync":
        lines = [f"with engine.no_sync() if k < {last} else contextlib.nullcontext():", *(f"    {line}" for line in lines)]
    if flags["read"]:
        lines += [f"if k == {last}:", "    read = flat(map(safe_get_full_grad, theirs))"]
    if f["accumulate"] == "managed":
        lines.append("engine.step()")
    mine = f"parts[rank::{ranks}]" if ranks > 1 else "parts"
    numbered = by_hand or flags["read"] or f["accumulate"] == "no_sync"
    loop = [f"for k, rows in enumerate({mine}):" if numbered else f"for rows in {mine}:", *(f"    {line}" for line in lines)]
    if f["accumulate"] == "coalesce":
        loop = ["with engine.coalesce_grad_reduction():", *(f"    {line}" for line in loop)]
    if f["accumulate"] != "managed":
        loop.append("engine.step()")
    return "\n".join(loop)
