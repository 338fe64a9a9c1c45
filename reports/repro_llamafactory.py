"""The standalone script of a LLaMA-Factory cell: ``run_exp`` on a tiny model, tokenizer and data set (see ``repro.py``).

The arguments are those of the driver, less what is the default; the samples, the loss and the reading are the script's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truestep.fixtures.cell import Cell, CellError, adapter_of
from truestep.fixtures.drivers import _llamafactory, versions_of
from truestep.fixtures.drivers import llamafactory as driver
from truestep.fixtures.heads import HEADS
from truestep.reports.repro_transformers import config_of
from truestep.reports.template import Flags, Values, dictionary, take

#: trained tokens, pairs, and liked samples
TOKENS = (*(name for name in _llamafactory.SFT if name != "router"), *_llamafactory.PRETRAINING)
PAIRS = tuple(name for name in _llamafactory.DPO if name != "dpo_adapter")
OBJECTIVES = (*TOKENS, *PAIRS, *_llamafactory.KTO)

_SCRIPT = r'''
                |"""LLaMA-Factory $version$deepspeed: $id
                |
                |Compares the gradient that the optimizer consumed with plain PyTorch's: $mean
                |Run: python this_file.py ($needs; CPU). Exit code: 1 wrong, 0 right, 2 refused."""
                |import json, os, sys, tempfile
                |from importlib.metadata import version
                |folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
!ranks          |rank = 0
ranks           |rank = int(os.fork() == 0)  # this process is rank 0, its child the other
ranks           |sys.stdout = open(os.devnull, "w") if rank else sys.stdout
                |os.environ.update(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1", LLAMAFACTORY_VERBOSITY="ERROR"$cpu)
group           |os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="$W", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
                |sys.path.append(folder.name)  # for whoever has no torchaudio: it is imported for audio, which is not used
                |open(f"{folder.name}/torchaudio.py", "w").close()
                |import $imports
                |from llamafactory.train.tuner import run_exp
                |from tokenizers import Tokenizer, models, pre_tokenizers
!under          |from torch.optim.optimizer import register_optimizer_step_pre_hook
                |sys.excepthook = lambda *e: os._exit(print("REFUSED by llamafactory", *e[:2], flush=True, file=sys.__stdout__) or 2)
ranks           |torch.distributed.init_process_group("gloo", f"file://{folder.name}/store", rank=rank, world_size=$W)
group !ranks    |torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
under           |sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # compiles for minutes; gloo will do
                |
                |def text(ids):
                |    return " ".join(f"<{i}>" for i in ids)
                |
                |def draw(n):
                |    return torch.randint(3, 32, (n,)).tolist()
                |
                |def flat(tensors):
                |    return torch.cat([t.detach().double().flatten() for t in tensors])
                |
                |torch.manual_seed($seed)
                |$config
                |def make():  # with wide weights: losses must differ
                |    model = transformers.$cls(config)
                |    for p in model.parameters():
                |        p.data += 0.25 * torch.randn_like(p)
                |    return model.eval()
                |net$other
                |words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
                |words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
                |tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>",
                |                                                 unk_token="<2>")
tokens !turns   |samples = [[(draw(1 + i % 3), draw((2, 5, 1, 4, 3, 3, 5)[i % 7]))] for i in range($samples)]  # [(question, answer)]
turns           |samples = [[(draw(1 + (i + t) % 2), draw((2, 1, 3, 1, 1)[(i + 3 * t) % 5])) for t in range((3, 1, 2)[i % 3])]
turns           |           for i in range($samples)]  # [(question, answer), ...]
turns           |rows = [{"history": [[text(q), text(a)] for q, a in turns[:-1]], "instruction": text(turns[-1][0]),
turns           |         "output": text(turns[-1][1])} for turns in samples]
tokens !turns !document|rows = [{"instruction": text(q), "output": text(a)} for ((q, a),) in samples]
document        |rows = [{"text": text(q + a)} for ((q, a),) in samples]
pairs           |samples = [(draw(1 + i % 3), draw((3, 6, 2, 5, 4, 6, 2)[i % 7]), draw((4, 2, 6, 3, 5)[i % 5]))
pairs           |           for i in range($samples)]
pairs           |rows = [{"instruction": text(p), "chosen": text(c), "rejected": text(r)} for p, c, r in samples]
kto             |samples = [(draw(1 + i % 3), draw((3, 6, 2, 5, 4, 6, 2)[i % 7]), i % 3 != 0) for i in range($samples)]
kto             |rows = [{"instruction": text(p), "output": text(c), "liked": liked} for p, c, liked in samples]
kto             |samples = [(p, c, samples[i - 1][1], liked) for i, (p, c, liked) in enumerate(samples)]  # lent by the one before
                |if rank == 0:
                |    net.save_pretrained(f"{folder.name}/model")
                |    tokenizer.save_pretrained(f"{folder.name}/model")
refers          |    reference.save_pretrained(f"{folder.name}/reference")
refers          |    tokenizer.save_pretrained(f"{folder.name}/reference")
                |    columns = {$columns}
                |    about = {"cell": {"file_name": "data.json", "columns": columns$ranking}}
                |    for name, content in (("data", rows), ("dataset_info", about)):
                |        with open(f"{folder.name}/{name}.json", "w") as file:
                |            json.dump(content, file)
ranks           |torch.distributed.barrier()
                |
                |seen, logs, params = [], [], []
!under          |def watch(*_):  # every optimizer, before its step
!under          |    seen.append((flat(params), flat(torch.zeros_like(p) if p.grad is None else p.grad for p in params)))
!under          |register_optimizer_step_pre_hook(watch)
under           |def whole(p):  # a parameter, on every rank
stage3          |    with deepspeed.zero.GatheredParameters([p]):
stage3          |        return p.detach().clone()
under !stage3   |    return p.detach().clone()
under           |def moment(engine, p):  # Adam's first, of the whole parameter
stage0          |    return engine.optimizer.state[p]["exp_avg"]
under !stage0   |    return deepspeed.utils.safe_get_full_optimizer_state(p, "exp_avg")
under           |initialize = deepspeed.initialize
under           |def watched(*given, **named):  # what is trained, before and after every optimizer step
under           |    made = initialize(*given, **named)
under           |    if named.get("optimizer") is None:  # a reference model
under           |        return made
under           |    engine, step = made[0], made[0].step
under           |    params.extend(engine.module.parameters())
under           |    before = [flat(whole(p) for p in params)]
under           |    def stepped(*given, **named):
under           |        boundary = engine.is_gradient_accumulation_boundary()
under           |        step(*given, **named)
under           |        if boundary:
linked          |            for i, group in enumerate(engine.optimizer.bit16_groups):  # read a second group's state, too
linked          |                deepspeed.utils.lazy_init_hp_params_optimizer_state(
linked          |                    group, engine.optimizer.single_partition_of_fp32_groups[i], engine.optimizer.optimizer.state)
under           |            seen.append((before[-1], flat(moment(engine, p) for p in params)))
under           |            before.append(flat(whole(p) for p in params))
under           |    engine.step = stepped
under           |    return made
under           |deepspeed.initialize = watched
                |class Seen(transformers.TrainerCallback):
!under          |    def on_train_begin(self, args, state, control, model=None, **_):
!under          |        params.extend(model.parameters())
                |    def on_train_end(self, args, state, control, **_):
                |        logs.extend(log["loss"] for log in state.log_history if "loss" in log)
                |
                |$arguments
                |run_exp(arguments, callbacks=[Seen()])
                |
                |exact$doubled
tokens          |def loss_of(part):  # (sum, number) over the trained tokens of these samples
tokens          |    total, count = 0.0, 0
tokens          |    for turns in part:
tokens          |        ids, targets = [], []  # what is to follow every token, -100: nothing
tokens          |        for asked, answered in turns:
tokens          |            ids += asked + answered
last            |            targets = [-100] * len(targets)  # of the turns before
tokens !all     |            targets += [-100] * (len(asked) - 1) + answered + [$end]
all             |        targets = ids[1:] + [$end]
tokens          |        targets = torch.tensor(targets)
tokens          |        logits = exact(torch.tensor([ids])).logits[0].double()
tokens          |        surprise, trained = -logits.log_softmax(-1), targets != -100
tokens          |        own = surprise.gather(1, targets.clamp(min=0)[:, None])[:, 0]
smoothed        |        own = 0.9 * own + 0.1 * surprise.mean(-1)
eaft            |        top = logits.detach().topk(20).values.log_softmax(-1)
eaft            |        own = -(top.exp() * top).sum(-1) / 3 * own  # arXiv 2601.02151
dft             |        own = (-own).exp().detach() * own  # arXiv 2508.05629
asft            |        wanted = plain(torch.tensor([ids])).logits[0].double().detach().log_softmax(-1)
asft            |        own = own + 0.25 * (wanted.exp() * (wanted + surprise)).sum(-1)  # arXiv 2509.23753
tokens          |        total, count = total + (own * trained).sum(), count + int(trained.sum())
tokens          |    return total, count
!tokens         |def logps(model, prompt, completion):  # of every token of the completion
!tokens         |    ids = torch.tensor([prompt + completion])
!tokens         |    found = model(ids).logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])
!tokens         |    return found[len(prompt) - 1 :, 0]
!tokens         |
pairs           |def loss_of(part):  # (sum, number) over these pairs
bco             |    both = [(logps(exact, p, c) - logps(plain, p, c).detach()).sum() for p, *pair in part for c in pair]
bco             |    base = 0.25 * sum(both).detach() / len(both)
pairs           |    total = 0.0
pairs           |    for prompt, chosen, rejected in part:
pairs           |        w, l = logps(exact, prompt, chosen), logps(exact, prompt, rejected)
pairs refers    |        x, y = logps(plain, prompt, chosen).detach(), logps(plain, prompt, rejected).detach()
ld              |        n = min(len(w), len(l))  # of what goes beyond the shorter one, a quarter counts
ld              |        w, l, x, y = (torch.cat([v[:n], share * v[n:]]) for v, share in ((w, 0.25), (l, 0.25), (x, 1), (y, 1)))
pairs           |        $margin
pairs           |        total = total + $loss
pairs           |    return total, len(part)
kto             |def loss_of(part):  # (sum, number) over these samples
kto             |    own, lent = ([(logps(exact, s[0], s[i]) - logps(plain, s[0], s[i]).detach()).sum() for s in part] for i in (1, 2))
kto             |    base, total = (sum(lent) / len(part)).clamp(min=0).detach(), 0.0
kto             |    for ratio, (prompt, completion, _, liked) in zip(own, part):
kto             |        total = total + (1.5 if liked else 0.75) * (1 - torch.sigmoid((0.25 if liked else -0.25) * (ratio - base)))
ftx kto         |        total = total - (0.5 * logps(exact, prompt, completion).mean() if liked else 0.0)
kto             |    return total, len(part)
                |
under           |wrong, at, old = len(seen) != $steps, 0, 0.0
!under          |wrong, at = len(seen) != $steps, 0
                |for step, (K, (before, got), log) in enumerate(zip($windows, seen, logs)):
under           |    got, old = (got - 0.9 * old) / (1 - 0.9), got
                |    torch.nn.utils.vector_to_parameters(before, exact.parameters())
!apart          |    parts = [[samples[i % len(samples)] for i in range(m * $size, (m + 1) * $size)] for m in range(at, at + K$times)]
!apart          |    used = [1.0] * len(parts)
apart           |    parts, here = [[sample] for sample in samples], range(at * $size, (at + K$times) * $size)
apart           |    used = [float(i in here) for i in range(len(parts))]
                |    at, terms = at + K$times, [loss_of(part) for part in parts]
                |    count = sum(u * n for u, (_, n) in zip(used, terms))
                |    each = [flat(torch.autograd.grad(t / count, list(exact.parameters()))) for t, _ in terms]
                |    want, loss = sum(u * g for u, g in zip(used, each)), float(sum(u * t / count for u, (t, _) in zip(used, terms)))
clip            |    got = got / min(1.0, $max_norm / (want.norm() + 1e-6))  # as it was before it was clipped
                |    weights = [round(w, 3) + 0.0 for w in (torch.linalg.pinv(torch.stack(each, 1)) @ got).tolist()]  # least squares
                |    print(f"step {step + 1}: effective weights of the $pieces: {weights}  expected: {used}")
                |    for what, error in (("gradient consumed", float((got - want).norm() / want.norm())),
                |                        ("loss logged", max(abs(log - loss) - 6e-5, 0.0) / abs(loss))):  # of four decimals
                |        print(f"the {what} is off by {error:.3g}" + ("" if error <= 1e-4 else "  <- WRONG"))
                |        wrong |= not error <= 1e-4
                |names = $below
                |print("WRONG with" if wrong else "RIGHT with", ", ".join(f"{name} {version(name)}" for name in names))
                |sys.stdout.flush(), folder.cleanup(), os._exit(int(wrong))  # at once: gloo's threads may abort an ordinary exit
'''

_LOGRATIO = "margin = 0.25 * ((w - x).sum() - (l - y).sum())"
_SIGMOID = "-logsigmoid(margin)"
#: objective -> (the margin of a pair, its loss); w, l: log-probabilities of the tokens, x, y: the reference's
_LOSSES = {
    "dpo_sigmoid": (_LOGRATIO, _SIGMOID),
    "dpo_smoothed": (_LOGRATIO, "(-0.875 * logsigmoid(margin) - 0.125 * logsigmoid(-margin))"),
    "dpo_hinge": (_LOGRATIO, "torch.relu(1 - margin)"),
    "dpo_ipo": ("margin = (w - x).mean() - (l - y).mean()", "(margin - 1 / (2 * 0.25)) ** 2"),
    "dpo_ftx": (_LOGRATIO, "(-logsigmoid(margin) - 0.5 * w.mean())"),
    "dpo_ld": (_LOGRATIO, _SIGMOID),
    "dpo_bco": (
        "margin, good, bad = 0.25 * ((w - x).sum() - (l - y).sum()), 0.25 * (w - x).sum(), 0.25 * (l - y).sum()",
        "(-logsigmoid(margin) - 0.5 * (logsigmoid(good - base) + logsigmoid(base - bad))) / 1.5",
    ),
    "orpo_pairs": (
        "a, b = w.mean(), l.mean()",
        "(-a - 0.25 * logsigmoid(a - b - torch.log1p(-a.exp()) + torch.log1p(-b.exp())))",
    ),
    "simpo": ("margin = 0.25 * (w.mean() - l.mean()) - 0.5", _SIGMOID),
}
#: arguments that a script does without: defaults, and what concerns neither the loss nor the step
_SPARED = (
    "adam_beta1", "adam_beta2", "adam_epsilon", "dataloader_pin_memory", "logging_first_step",
    "per_device_eval_batch_size", "preprocessing_batch_size", "seed", "warmup_steps", "weight_decay",
)  # fmt: skip


def script(cell: Cell) -> str:
    """The source of the script; raises CellError for what no template expresses."""
    if cell.objective not in OBJECTIVES or adapter_of(cell.model):
        what = "adapters" if adapter_of(cell.model) else cell.objective
        raise CellError(f"no standalone script for LLaMA-Factory's {what} yet; there is one for {', '.join(OBJECTIVES)}")
    if not driver.possible(cell):
        raise CellError(f"no standalone script: LLaMA-Factory offers no cell {cell.id}")
    return take(_SCRIPT, _flags(cell), _values(cell))


def _flags(cell: Cell) -> Flags:
    f, name = cell.facts(), cell.objective
    under = f["engine"] == "deepspeed"
    return {
        "ranks": cell.split.world_size > 1,
        "group": cell.split.world_size > 1 or under,
        "under": under,
        "stage0": under and f["stage"] == 0,
        "stage3": under and f["stage"] == 3,
        "linked": under and f["stage"] in (1, 2),
        "refers": name in _llamafactory.REFERRED,
        "tokens": name in TOKENS,
        "turns": name in _llamafactory.TURNS,
        "last": name in ("last_turn", "last_turn_ended"),
        "all": name in ("whole_mean", "document_mean"),
        "document": name == "document_mean",
        "smoothed": name == "smoothed",
        "dft": name in ("dft", "asft"),
        "eaft": name == "eaft",
        "asft": name == "asft",
        "pairs": name in PAIRS,
        "ld": name == "dpo_ld",
        "bco": name == "dpo_bco",
        "kto": name in _llamafactory.KTO,
        "ftx": name == "kto_ftx",
        "apart": f["packing"] != "none" or f["data"] == "drawn",
        "clip": f["clipping"] != "off",
    }


def _values(cell: Cell) -> Values:
    split, head, flags = cell.split, HEADS[cell.model], _flags(cell)
    stage = _llamafactory.stage_of(cell.objective)
    size = split.size or split.samples(0) // (split.world_size * split.windows[0])
    columns = _llamafactory.columns_of(cell)["columns"]
    versions = versions_of(driver.NAME)
    deepspeed = f", DeepSpeed {versions.get('deepspeed', '(not installed)')}" if flags["under"] else ""
    margin, loss = _LOSSES.get(cell.objective, ("", ""))
    imports = ["deepspeed"] * flags["under"] + ["torch", "transformers"]
    return {
        "id": cell.id,
        "version": versions.get("llamafactory", "(not installed)"),
        "deepspeed": deepspeed,
        "below": '"llamafactory", "transformers"' + (', "deepspeed"' if flags["under"] else ""),
        "cpu": ', DS_ACCELERATOR="cpu"' if flags["under"] else "",
        "mean": "the mean over all trained tokens of a step." if flags["tokens"] else "the mean over all samples of a step.",
        "needs": "llamafactory, deepspeed" if flags["under"] else "llamafactory",
        "imports": ", ".join(imports) + ("\nfrom torch.nn.functional import logsigmoid" if flags["pairs"] else ""),
        "W": str(split.world_size),
        "times": f" * {split.world_size}" if flags["ranks"] else "",
        "seed": str(cell.seed),
        "config": config_of(cell),
        "cls": head.cls,
        "other": ", reference = make(), make()" if flags["refers"] else " = make()",
        "doubled": ", plain = net.double(), reference.double()" if flags["refers"] else " = net.double()",
        "samples": str(size * split.world_size * sum(split.windows) // split.epochs),
        "size": str(size),
        "ranking": ', "ranking": True' if stage in ("dpo", "rm") else "",
        "columns": ", ".join(f'"{key}": "{value}"' for key, value in columns.items()),
        "arguments": _arguments(cell),
        "end": "1" if cell.objective in ("response_mean", "turns_ended", "last_turn_ended", "document_mean") else "-100",
        "margin": margin,
        "loss": loss,
        "steps": str(split.steps),
        "windows": str(list(split.windows)),
        "pieces": "samples" if flags["apart"] else "micro-batches",
        "max_norm": str(driver.asked_norm(cell)),
    }


def _arguments(cell: Cell) -> str:
    given: dict[str, Any] = _llamafactory.arguments(cell, Path("FOLDER"), driver.ADAM)
    given = {key: value for key, value in given.items() if key not in _SPARED}
    given |= {"dataset_dir": "FOLDER"}
    if "deepspeed" in given:
        zero = given["deepspeed"]["zero_optimization"]
        kept = {key: value for key, value in zero.items() if not key.endswith(("distance", "live_parameters", "group_size"))}
        given["deepspeed"] = {**given["deepspeed"], "zero_optimization": kept}
        del given["deepspeed"]["steps_per_print"]
    return dictionary("arguments = {", given, 96).replace('"FOLDER"', "folder.name").replace('"FOLDER', 'f"{folder.name}')
