"""A standalone script for a cell: the framework and torch alone, no truestep, ready for an upstream issue.

The script has its own model, data, loop and float64 reference, written from scratch for the cell's
configuration: it confirms a finding by other code than the code that found it. It exits with 1 where the
step is wrong, 0 where it is right, and 2 where DeepSpeed refuses.
"""

from __future__ import annotations

import os
import pprint
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from truestep.fixtures.cell import SAMPLES, Cell, CellError
from truestep.fixtures.drivers import driver_of

_MLP = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
{layers}        self.last = torch.nn.Linear(8, 5)

    def forward(self, x, y, w, flags):
        h = torch.tanh(self.first(x))
{body}        logits = self.last(h)
        return {returned}


def loss_of(net, x, y, w, flags):
    {loss}


def model():
    torch.manual_seed({seed})
    net = Net()
{frozen}    for p in net.parameters():
        p.data.mul_(1.5)
    return net


def data(step):  # 16 samples of unequal length; w: the weight of each token in the loss of the whole step
    g = torch.Generator().manual_seed({seed} + step)
    x, y = torch.randn(16, 6, 6, generator=g), 2 * torch.randn(16, 6, 5, generator=g) + torch.linspace(-2, 2, 16)[:, None, None]
    {mask}
    flags = torch.arange(16) // 4 % 2 == 0
    return x, y, {weight}, flags
"""
_LM = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import {name}Config, {name}ForCausalLM
        self.net = {name}ForCausalLM({name}Config(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, initializer_range=0.25, tie_word_embeddings={tie}))

    def forward(self, x, y, w, flags):
        logits = self.net(input_ids=x, use_cache=False).logits
        return {returned}


def loss_of(net, x, y, w, flags):
    {loss}


def model():
    torch.manual_seed({seed})
    return Net()


def data(step):  # 16 samples of unequal length; w: the weight of each token in the loss of the whole step
    ids = torch.randint(0, 32, (16, 7), generator=torch.Generator().manual_seed({seed} + step))
    {mask}
    return ids[:, :-1], ids[:, 1:], {weight}, torch.ones(16)
"""
_SUM = {
    "mlp": "((({logits} - y) ** 2).sum(-1) * w).sum()",
    "lm": '(torch.nn.functional.cross_entropy({logits}.flatten(0, 1), y.flatten(), reduction="none").view(y.shape) * w).sum()',
}
_LAYERS = {
    "tied": "        self.a = torch.nn.Linear(8, 8)\n        self.b = torch.nn.Linear(8, 8)\n        self.b.weight = self.a.weight\n",
    "reused": "        self.a = torch.nn.Linear(8, 8)\n",
    "unused": "        self.a = torch.nn.Linear(8, 8)\n",
}
_BODY = {
    "tied": "        h = torch.tanh(self.b(torch.tanh(self.a(h))))\n",
    "reused": "        h = torch.tanh(self.a(torch.tanh(self.a(h))))\n",
    "unused": "        if flags.any():  # some micro-batches leave this layer out\n"
    "            h = h + flags[:, None, None].to(h.dtype) * torch.tanh(self.a(h))\n",
}


def script(cell: Cell) -> str:
    """The source of the script; raises CellError for a framework that has no template."""
    if cell.framework != "deepspeed":
        raise CellError(f"no standalone script for {cell.framework!r} cells yet")
    driver, f = driver_of(cell.framework), cell.facts()
    version = driver.version() or "?"
    largest = {"llama": 512, "qwen2": 512}.get(cell.model, 64 if cell.model != "mlp" and cell.model != "mlp_frozen" else 48)
    config = driver.config_of(cell, largest, cell.split.windows[0])
    parts = [
        f'"""DeepSpeed {version}: {cell.id}\n\nTakes the optimizer step{"s" if cell.split.steps > 1 else ""}'
        " and compares the gradient that the optimizer consumed with float64 autograd over the whole batch.\n"
        f'Run: python this_file.py   (deepspeed and torch{", transformers" if f["model"] in ("llama", "qwen2") else ""}; CPU is enough)\n"""',
        _imports(cell),
        f"W, WINDOWS = {cell.split.world_size}, {list(cell.split.windows)}  # ranks; micro-batches of each optimizer step",
        f"CONFIG = {pprint.pformat(config, width=110, sort_dicts=False)}",
        _model(cell),
        _training(cell, driver),
        _main(cell),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _imports(cell: Cell) -> str:
    return dedent(f"""
        import os, sys, tempfile{", contextlib" if cell.knob("accumulate") == "no_sync" else ""}

        os.environ.setdefault("DS_ACCELERATOR", "{"cpu" if cell.device == "cpu" else "cuda"}")
        import torch
        import torch.distributed as dist
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state, safe_get_full_grad
        """)


def _model(cell: Cell) -> str:
    language = cell.model in ("llama", "qwen2")
    variant = cell.model.partition("_")[2]
    total = _SUM["lm" if language else "mlp"].format(logits="logits.float()" if cell.knob("dtype") != "fp32" else "logits")
    if cell.batch == "equal":
        mask = "mask = torch.ones(16, 6, dtype=torch.bool)"
    else:
        mask = ("n = torch.tensor([(1, 5, 2, 6, 3, 6, 2)[(i + step) % 7] for i in range(16)]); "
                "mask = torch.arange(6) < n[:, None]")  # fmt: skip
    weight = "mask / mask.sum()" if cell.objective == "token_mean" else "mask / (16 * mask.sum(1, keepdim=True))"
    outside = cell.knob("returns") == "output"
    values: dict[str, Any] = {
        "seed": cell.seed + 1,
        "mask": mask,
        "weight": weight,
        "returned": '{"logits": logits}' if outside else total,
        "loss": f'logits = net(x, y, w, flags)["logits"]\n    return {total}' if outside else "return net(x, y, w, flags)",
    }
    if language:
        name = {"llama": "Llama", "qwen2": "Qwen2"}[cell.model]
        return _LM.format(**values, name=name, tie=cell.model == "qwen2")
    frozen = "    net.first.weight.requires_grad_(False)\n" if variant == "frozen" else ""
    return _MLP.format(**values, frozen=frozen, layers=_LAYERS.get(variant, ""), body=_BODY.get(variant, ""))


def _training(cell: Cell, driver: Any) -> str:
    f = cell.facts()
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[f["dtype"]]
    language = cell.model in ("llama", "qwen2")
    x = "x[rows]" if language or dtype == "float32" else f"x[rows].to(torch.{dtype})"
    optimizer, observe, consumed, finish = _optimizer(cell, driver)
    managed = f["accumulate"] == "managed"
    scaled = "engine.gradient_accumulation_steps()" if f["backward"] != "unscaled" else "1"
    backward = {
        "engine": "engine.backward(loss)",
        "unscaled": "engine.backward(loss, scale_wrt_gas=False)",
        "torch": "loss.backward()",
    }
    body = [f"loss = loss_of(engine, {x}, y[rows], w[rows] * (scale * W), flags[rows])", backward[f["backward"]]]
    if f["accumulate"] in ("boundary", "boundary_k"):
        body.insert(0, "engine.set_gradient_accumulation_boundary(k == K - 1)")
    if managed and f["read"] == "grad":
        body.append("if k == K - 1:\n    read = [safe_get_full_grad(p).double() for _, p in named]")
    if managed:
        body.append("engine.step()")
    loop = "for k, rows in enumerate(parts[rank::W]):\n" + indent("\n".join(body), "    ")
    if f["accumulate"] == "no_sync":
        loop = ("for k, rows in enumerate(parts[rank::W]):\n    with engine.no_sync() if k < K - 1 else contextlib.nullcontext():\n"
                + indent("\n".join(body), "        "))  # fmt: skip
    if f["accumulate"] == "coalesce":
        loop = "with engine.coalesce_grad_reduction():\n" + indent(loop, "    ")
    if not managed:
        loop += "\nengine.step()"
    varying = managed and len(set(cell.split.windows)) > 1
    resize = "engine.set_train_batch_size(engine.train_micro_batch_size_per_gpu() * K * W)" if varying else ""
    reload = ""
    if f["checkpoint"] == "reload":
        reload = dedent("""
            if step == 1:  # save, rebuild from other weights, load
                engine.save_checkpoint(folder, tag="one")
                engine.destroy()
                torch.manual_seed(99)
                net = model()
                for p in net.parameters():
                    p.data.mul_(-1)
                engine, named = engine_of(net)
                engine.load_checkpoint(folder, tag="one")
                before = [a for a in observed]
                moved = max(float((a - b).abs().max()) for a, b in zip(before[0], observe(engine, named, fresh=True)[0]))
                wrong |= moved > 0
                say(f"step 2: loading moved the weights by {moved:.2g}")
            """)
    reading = ""
    if f["read"] == "grad":
        reading = dedent(f"""
            error = max(float((a - b).norm() / b.norm().clamp(min=1e-3)) for a, b in zip(read, want))
            say(f"step {{step + 1}}: safe_get_full_grad is off by {{error:.3g}}")
            wrong |= error > {1e-4 if dtype == "float32" else 2e-2}
            """)
    lying = ""
    if f["stage"] and dtype == "float32":
        lying = dedent("""
            if step == 0:
                error = max(float((safe_get_full_fp32_param(p).double() - q).norm() / q.norm()) for (_, p), q in zip(named, weights))
                say(f"before any step: safe_get_full_fp32_param is off by {error:.3g}")
                wrong |= error > 1e-6
            """)
    text = dedent("""
        def weights_of(engine, named):
            found = []
            for _, p in named:
                with GATHER:
                    found.append(p.detach().double().clone())
            return found


        def engine_of(net):
            OPTIMIZER
            engine = deepspeed.initialize(model=net, optimizer=optimizer, config=CONFIG, dist_init_required=False)[0]
            return engine, [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]


        OBSERVE


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
                RELOAD
                RESIZE
                weights = weights_of(engine, named)
                LYING
                x, y, w, flags = data(step)
                order = SIZES
                parts = order.split(sizes(W * K))
                scale = SCALED
                LOOP
                after = observe(engine, named)
                got = CONSUMED
                columns = [gradients(REFERENCE, weights, x[r], y[r], w[r], flags[r]) for r in parts]
                want = [sum(c[i] for c in columns) for i in range(len(got))]
                CLIP
                error = max(float((a - b).norm() / max(b.norm(), norm / 64)) for a, b in zip(got, want))
                flat = lambda tensors: torch.cat([t.flatten() for t in tensors])
                weight = torch.linalg.lstsq(torch.stack([flat(c) for c in columns], 1), flat(got)[:, None], driver="gelsd").solution[:, 0]
                say(f"step {step + 1}: the gradient consumed is off by {error:.3g}; "
                    f"weights of the {W * K} micro-batches (1 is right): {[round(v, 3) for v in weight.tolist()]}")
                wrong |= not error <= LIMIT
                reported = engine.get_global_grad_norm()
                if reported is not None:
                    error = abs(float(reported) / full - 1)
                    say(f"step {step + 1}: the reported gradient norm is off by {error:.3g}")
                    wrong |= not error <= LIMIT
                READING
                FINISH
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
            turns = TURNS
            for i in range(extra):
                count[turns[i % len(turns)]] += 1
            return count
        """)
    limit = driver.MAX_NORM[f["clipping"]]
    clip = "full = norm = float(torch.cat([t.flatten() for t in want]).norm())"
    if limit is not None:
        clip += f"\nwant = [t * min(1.0, {limit} / (norm + 1e-6)) for t in want]\nnorm = float(torch.cat([t.flatten() for t in want]).norm())"
    replace = {
        "GATHER": "deepspeed.zero.GatheredParameters([p])" if f["stage"] == 3 else "torch.no_grad()",
        "OPTIMIZER": optimizer,
        "OBSERVE": observe,
        "CONSUMED": consumed,
        "FINISH": finish,
        "RELOAD": reload,
        "RESIZE": resize,
        "LYING": lying,
        "SCALED": scaled,
        "LOOP": loop,
        "READING": reading,
        "CLIP": clip,
        "REFERENCE": "model().double()" if dtype == "float32" else f"model().to(torch.{dtype})",
        "LIMIT": "4e-6" if dtype == "float32" else "1e-2",
        "SIZES": "torch.arange(16)",
        "TURNS": "[p for p in range(parts) for _ in range((3, 1, 2)[p % 3])]" if cell.split.uneven else "list(range(parts))",
    }
    return _fill(text, replace)


def _optimizer(cell: Cell, driver: Any) -> tuple[str, str, str, str]:
    """(construction, observation, gradient consumed, a check of the update) for the cell's optimizer."""
    f = cell.facts()
    plain = f["stage"] == 0 and f["dtype"] == "fp32"
    keys = ["momentum_buffer"] if f["optimizer"] == "sgd" else ["exp_avg", "exp_avg_sq"]
    parameters = "[p for p in net.parameters() if p.requires_grad]"
    adam = ", ".join(f"{k}={v!r}" for k, v in driver.ADAM.items())
    build = {
        "sgd": f"optimizer = torch.optim.SGD({parameters}, lr={driver.SGD['lr']}, momentum={driver.SGD['momentum']})",
        "adam": f"optimizer = torch.optim.AdamW({parameters}, {adam})",
        "cpu_adam": f"optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam({parameters}, adamw_mode=True, {adam})",
    }[f["optimizer"]]
    pair = (
        "pair = {id(a): b for g, h in zip(engine.optimizer.fp16_groups, engine.optimizer.fp32_groups) for a, b in zip(g, h)}\n"
    )
    if plain:
        find, states = "masters = [p for _, p in named]", "[engine.optimizer.state[m][KEY] for m in masters]"
    elif f["stage"] <= 1 and f["dtype"] != "fp32":  # in some releases an optimizer that the reading APIs do not know
        find = (
            'own = hasattr(engine.optimizer, "fp16_groups") and hasattr(engine.optimizer, "fp32_groups")\n'
            f"    if own:\n        {pair}        masters = [pair[id(p)] for _, p in named]\n"
            "    else:\n        masters = [safe_get_full_fp32_param(p) for _, p in named]"
        )
        states = ("[engine.optimizer.state[m][KEY] if own else safe_get_full_optimizer_state(p, KEY)"
                  " for m, (_, p) in zip(masters, named)]")  # fmt: skip
    else:
        find = "masters = [safe_get_full_fp32_param(p) for _, p in named]"
        states = "[safe_get_full_optimizer_state(p, KEY) for _, p in named]"
    lines = [
        "def observe(engine, named, fresh=False):  # float32 master copy and optimizer state of every parameter",
        f"    {find}",
        "    zeros = [torch.zeros_like(m) for m in masters]",
    ]
    for i, key in enumerate(keys):
        lines.append(f"    state{i} = zeros if fresh else " + states.replace("KEY", repr(key)))
    names = ", ".join(["masters", *(f"state{i}" for i in range(len(keys)))])
    lines.append(f"    return [[t.detach().double().clone() for t in group] for group in ({names})]")
    if f["optimizer"] == "sgd":
        consumed = f"[b - {driver.SGD['momentum']} * a for a, b in zip(observed[1], after[1])]"
        finish = (f"error = max(float((q - (p - {driver.SGD['lr']} * b)).norm() / q.norm()) "
                  "for p, q, b in zip(observed[0], after[0], after[1]))")  # fmt: skip
        return build, "\n".join(lines), consumed, _finish(finish)
    b1, b2 = driver.ADAM["betas"]
    consumed = f"[(b - {b1} * a) / {1 - b1} for a, b in zip(observed[1], after[1])]"
    lr, eps, decay = driver.ADAM["lr"], driver.ADAM["eps"], driver.ADAM["weight_decay"]
    finish = (
        f"right = [p * (1 - {lr * decay}) - {lr} * (m / (1 - {b1} ** (step + 1))) / ((v / (1 - {b2} ** (step + 1))).sqrt() + {eps})\n"
        "         for p, m, v in zip(observed[0], after[1], after[2])]\n"
        "error = max(float((q - r).norm() / r.norm()) for q, r in zip(after[0], right))"
    )
    return build, "\n".join(lines), consumed, _finish(finish)


def _finish(compute: str) -> str:
    return compute + '\nsay(f"step {step + 1}: the update is off by {error:.3g} of the weights")\nwrong |= not error <= 1e-4'


def _main(cell: Cell) -> str:
    return dedent("""
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
        """)


def _fill(text: str, values: dict[str, str]) -> str:
    """Replace whole-word markers; one that stands alone on its line takes its indentation along."""
    lines = []
    for line in text.splitlines():
        marker = line.strip()
        if marker in values:
            space = line[: len(line) - len(line.lstrip())]
            if values[marker].strip():
                lines.append(indent(values[marker].strip("\n"), space))
            continue
        for name, value in values.items():
            line = line.replace(f" {name}", f" {value}").replace(f"({name},", f"({value},")
        lines.append(line)
    return "\n".join(lines) + "\n"


#: imports once, then runs each script it is told of in a process of its own, forked before anything was computed
_LAUNCHER = """
import gc, os, runpy, sys
import torch, torch._dynamo, deepspeed
gc.collect(); gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    path = line.strip()
    child = os.fork()
    if child == 0:
        out = os.open(path + ".out", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1); os.dup2(out, 2)
        code = 3
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("done", status, flush=True)
"""


def execute(cell: Cell, python: str = sys.executable) -> tuple[bool, str]:
    """Run the script in a process of its own: (whether it finds the step wrong, its last words)."""
    ((_, wrong, said),) = execute_many([cell], python)
    return wrong, said


def execute_many(cells: Iterable[Cell], python: str = sys.executable) -> Iterator[tuple[Cell, bool, str]]:
    """Run the scripts of several cells one by one, each in a process of its own; yields (cell, wrong, last words)."""
    with tempfile.TemporaryDirectory(prefix="truestep-repro-") as folder:
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu")
        environment.setdefault("TORCH_EXTENSIONS_DIR", str(driver_of("deepspeed").extensions()))
        environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", "")])
        launcher = subprocess.Popen(
            [python, "-c", _LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=folder,
        )  # fmt: skip
        assert launcher.stdin is not None and launcher.stdout is not None
        try:
            while (line := launcher.stdout.readline()) and line.strip() != "ready":
                pass  # a framework may print while it is imported
            for number, cell in enumerate(cells):
                path = Path(folder) / f"repro-{number}.py"
                path.write_text(script(cell), encoding="utf-8")
                launcher.stdin.write(f"{path}\n")
                launcher.stdin.flush()
                while (line := launcher.stdout.readline()) and not line.startswith("done"):
                    pass
                code = int(line.split()[1]) if line else -1
                out = Path(f"{path}.out")
                yield cell, *_said(code, out.read_text(errors="replace") if out.exists() else "")
        finally:
            launcher.kill()
            launcher.wait()


def _said(code: int, output: str) -> tuple[bool, str]:
    lines = output.splitlines()
    said = [line for line in lines if line.startswith(("step", "before", "ranks", "WRONG", "RIGHT", "REFUSED"))]
    if code == 1 and any(line.startswith("WRONG") for line in said):
        return True, next((s for s in said if "off by" in s), said[-1])
    return False, " | ".join(said[-2:]) or (lines or ["(no output)"])[-1][:300]


assert SAMPLES == 16  # the scripts deal out 16 samples
