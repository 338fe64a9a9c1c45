"""The standalone script of an OpenRLHF cell: supervised fine-tuning by its command line (see ``repro.py``).

The arguments are those that a user would type; what a CPU lacks is replaced in the open, as in the driver.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truestep.fixtures.cell import Cell, CellError
from truestep.fixtures.drivers import Incompatible, _openrlhf, _openrlhf_offline, versions_of
from truestep.fixtures.drivers import openrlhf as driver
from truestep.fixtures.heads import HEADS
from truestep.reports.repro_transformers import config_of
from truestep.reports.template import Flags, Values, take

OBJECTIVES = ("response_mean", "whole_mean")

_SCRIPT = r'''
               |"""OpenRLHF $version, DeepSpeed $deepspeed: $id
               |
               |Compares the gradient that the optimizer consumed with plain PyTorch's: the mean over all trained tokens of a step.
               |Run: python this_file.py (openrlhf, deepspeed, transformers, datasets; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
               |import argparse, json, os, runpy, sys, tempfile, types
               |from importlib.machinery import ModuleSpec
               |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
!ranks         |rank = 0
ranks          |rank = int(os.fork() == 0)  # this process is rank 0, its child the other
ranks          |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
               |os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK="-1", WORLD_SIZE="$W", HF_HUB_OFFLINE="1",
               |                  MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
               |import datasets, deepspeed, torch, transformers
               |from tokenizers import Tokenizer, models, pre_tokenizers
               |
               |# What a CPU lacks, and nothing of the step: the device, attention over packed samples, float32 among the choices.
               |torch.cuda.current_device = lambda: torch.device("cpu")
               |for name in ("set_device", "synchronize", "empty_cache"):
               |    setattr(torch.cuda, name, lambda *_: None)
               |for name in ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed"):
               |    sys.modules[name] = stub = types.ModuleType(name)
               |    stub.__dict__.update(dict.fromkeys(("index_first_axis", "pad_input", "rearrange", "unpad_input", "all_gather")),
               |                         __path__=[], __spec__=ModuleSpec(name, None), __version__="0")
               |import torch.distributed.device_mesh as device_mesh
               |mesh, add = device_mesh.init_device_mesh, argparse._ActionsContainer.add_argument
               |device_mesh.init_device_mesh = lambda _, *given, **named: mesh("cpu", *given, **named)
               |def with_fp32(self, *given, **named):
               |    if "param_dtype" in str(given):
               |        named["choices"] = [*named["choices"], "fp32"]
               |    return add(self, *given, **named)
               |argparse._ActionsContainer.add_argument = with_fp32
               |import openrlhf.utils.utils as utils
               |if hasattr(utils, "convert_to_torch_dtype"):
               |    dtype_of = utils.convert_to_torch_dtype
               |    utils.convert_to_torch_dtype = lambda name: torch.float32 if name == "fp32" else dtype_of(name)
               |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
               |import openrlhf.cli.train_sft
               |import openrlhf.utils.distributed_sampler as sampling
               |sampler = sampling.DistributedSampler.__init__  # in order, so that the samples of a step are known
               |sampling.DistributedSampler.__init__ = lambda self, *given, **named: sampler(self, *given, **{**named, "shuffle": False})
               |
               |def refuse(kind, error, trace):
               |    print("REFUSED by openrlhf", kind.__name__, error, flush=True, file=sys.__stdout__)
               |    os._exit(2)
               |sys.excepthook = refuse
ranks          |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=$W)
!ranks         |torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
               |
               |def text(ids):
               |    return " ".join(f"<{i}>" for i in ids)
               |
               |def flat(tensors):
               |    return torch.cat([t.detach().double().flatten() for t in tensors])
               |
               |def whole(p):  # a parameter, on every rank
stage3         |    with deepspeed.zero.GatheredParameters([p]):
stage3         |        return p.detach().clone()
!stage3        |    return p.detach().clone()
               |
               |def moment(engine, p):  # Adam's first, of the whole parameter
stage0         |    return engine.optimizer.state[p]["exp_avg"]
!stage0        |    return deepspeed.utils.safe_get_full_optimizer_state(p, "exp_avg")
               |
               |seen, losses, logs, initialize = [], [], [], deepspeed.initialize
               |def watched(*given, **named):  # what the command line trains, before and after every optimizer step
               |    made = initialize(*given, **named)
               |    engine = made[0]
               |    params, step, backward = list(engine.module.parameters()), engine.step, engine.backward
               |    before = [flat(whole(p) for p in params)]
               |    def stepped():
               |        boundary = engine.is_gradient_accumulation_boundary()
               |        step()
               |        if boundary:
linked         |            for i, group in enumerate(engine.optimizer.bit16_groups):  # read a second group's state, too
linked         |                deepspeed.utils.lazy_init_hp_params_optimizer_state(
linked         |                    group, engine.optimizer.single_partition_of_fp32_groups[i], engine.optimizer.optimizer.state)
               |            seen.append((before[-1], flat(moment(engine, p) for p in params)))
               |            before.append(flat(whole(p) for p in params))
               |    def went_back(loss, *given, **named):
               |        losses.append(float(loss.detach()))
               |        return backward(loss, *given, **named)
               |    engine.step, engine.backward = stepped, went_back
               |    return made
               |deepspeed.initialize = watched
logged         |from openrlhf.trainer.sft_trainer import SFTTrainer
logged         |save = SFTTrainer.save_logs_and_checkpoints
logged         |def logging(self, args, step, bar, told, *rest, **named):
logged         |    logs.append(told["loss_mean"])
logged         |    return save(self, args, step, bar, told, *rest, **named)
logged         |SFTTrainer.save_logs_and_checkpoints = logging
               |
               |torch.manual_seed($seed)
               |$config
               |net = transformers.$cls(config)
               |words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
               |words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
               |tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>", unk_token="<2>")
               |samples = []  # (prompt, response); every response ends with the end of a sequence
               |for i in range($samples):
               |    ids = torch.randint(3, 32, (12,)).tolist()
               |    samples.append((ids[: 1 + i % 3], ids[3 : $longest] + [1]))
               |if rank == 0:
               |    net.save_pretrained(f"{folder.name}/model")
               |    tokenizer.save_pretrained(f"{folder.name}/model")
               |    with open(f"{folder.name}/data.jsonl", "w") as file:
!whole         |        file.writelines(json.dumps({"input": text(p) + " ", "output": text(r)}) + "\n" for p, r in samples)
whole          |        file.writelines(json.dumps({"input": text(p + r)}) + "\n" for p, r in samples)
               |datasets.config.HF_DATASETS_CACHE = folder.name
ranks          |torch.distributed.barrier()
               |sys.argv = ["train_sft"] + """
               |$typed
               |""".replace("FOLDER", folder.name).split()
               |runpy.run_module("openrlhf.cli.train_sft", run_name="__main__")
               |
               |exact, wrong, old = net.double(), len(seen) != $steps, 0.0
               |for step, (before, after) in enumerate(seen):
               |    torch.nn.utils.vector_to_parameters(before, exact.parameters())
               |    blocks = [range((step * $K + k) * $block, (step * $K + k + 1) * $block) for k in range($K)]  # of all ranks
               |    parts = [[samples[i % len(samples)] for i in block[r::$W]] for r in range($W) for block in blocks]  # the micro-batches
               |    sums, count = [], 0
               |    for part in parts:
               |        total = 0.0
               |        for prompt, response in part:
               |            ids = torch.tensor([prompt + response])
               |            logits = exact(ids).logits[0, :-1].log_softmax(-1)
               |            begin = $begin
               |            total = total - logits[begin:].gather(1, ids[0, begin + 1 :, None]).sum()
               |            count += ids.shape[1] - 1 - begin
               |        sums.append(total)
               |    each = [flat(torch.autograd.grad(total / count, list(exact.parameters()))) for total in sums]
               |    got, want, old = (after - $b1 * old) / (1 - $b1), sum(each), after
clip           |    factor = min(1.0, $max_norm / (want.norm() + 1e-6))
clip           |    got = got / factor  # as it was before it was clipped
               |    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
               |    error = float((got - want).norm() / want.norm())
               |    print(f"step {step + 1}: effective weights of the micro-batches: {weights}  expected: {[1.0] * len(parts)}")
               |    print(f"the gradient consumed is off by {error:.3g}" + ("" if error <= 1e-4 else "  <- WRONG"))
               |    wrong |= not error <= 1e-4
logged         |    told, true = logs[step], float(sum(sums) / count)
logged         |    print(f"the loss logged is off by {abs(told / true - 1):.3g}" + ("" if abs(told / true - 1) <= 1e-4 else "  <- WRONG"))
logged         |    wrong |= not abs(told / true - 1) <= 1e-4
               |print("WRONG" if wrong else "RIGHT", "with openrlhf", "$version", "deepspeed", deepspeed.__version__, flush=True)
               |folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
'''


def script(cell: Cell) -> str:
    """The source of the script; raises CellError for what is not supervised fine-tuning."""
    if cell.objective not in OBJECTIVES:
        raise CellError(f"no standalone script for OpenRLHF's {cell.objective} yet; there is one for {', '.join(OBJECTIVES)}")
    if driver.version() is None:
        raise CellError("no standalone script: its arguments are those of the installed openrlhf, and there is none")
    if not driver.possible(cell):
        raise CellError(f"no standalone script: OpenRLHF offers no cell {cell.id}")
    try:
        return take(_SCRIPT, _flags(cell), _values(cell))
    except Incompatible as error:
        raise CellError(f"no standalone script: {error}") from None


def _flags(cell: Cell) -> Flags:
    f = cell.facts()
    return {
        "ranks": cell.split.world_size > 1,
        "stage0": f["stage"] == 0,
        "stage3": f["stage"] == 3,
        "linked": f["stage"] in (1, 2),
        "whole": cell.objective == "whole_mean",
        "logged": f["loss"] == "logged",
        "clip": f["clipping"] != "off",
    }


def _values(cell: Cell) -> Values:
    split, head = cell.split, HEADS[cell.model]
    door, norm = _openrlhf_offline.door(cell), driver.asked_norm(cell)
    told = None if cell.knob("clipping") == "unset" else norm or 0.0
    options: dict[str, Any] = {**_openrlhf.common(cell, Path("FOLDER"), driver.ADAM, told), **door.options(cell, Path("FOLDER"))}
    words = _openrlhf.typed(door.module, options)
    lines: list[str] = []
    line = ""
    for word in words:
        if word.startswith("--") and len(line) + len(word) > 100:
            lines, line = [*lines, line], ""
        line += f" {word}" if line else word
    block = _openrlhf.size(cell) * split.world_size
    versions = versions_of(driver.NAME)
    return {
        "id": cell.id,
        "version": versions.get("openrlhf", "(not installed)"),
        "deepspeed": versions.get("deepspeed", "(not installed)"),
        "W": str(split.world_size),
        "K": str(split.windows[0]),
        "seed": str(cell.seed),
        "config": config_of(cell),
        "cls": head.cls,
        "block": str(block),
        "samples": str(block * sum(split.windows) // split.epochs),
        "longest": "4 + (2, 7, 1, 5, 3, 4, 6)[i % 7]",
        "typed": "\n".join([*lines, line]),
        "steps": str(split.steps),
        "begin": "0" if cell.objective == "whole_mean" else "len(prompt) - 1",
        "b1": str(driver.ADAM["betas"][0]),
        "max_norm": str(norm),
    }

