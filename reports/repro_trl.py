"""The standalone script of a TRL cell: SFT, reward modelling and preferences (see ``repro_transformers.py``).

The samples are text (``<7>`` is token 7), which a word-level tokenizer of the script's own reads; the objective is
written out in plain PyTorch over the whole batch of a step.
"""

from __future__ import annotations

import dataclasses
import sys
from textwrap import indent
from typing import Any

from truestep.fixtures import objectives
from truestep.fixtures.cell import Cell, CellError, adapter_of
from truestep.fixtures.drivers import Incompatible, _trl_distil, _trl_offline, _trl_online, _trl_shared
from truestep.fixtures.drivers import trl as driver
from truestep.fixtures.heads import HEADS
from truestep.fixtures.objectives import _policy, _preference, dpo_sft, kto, reward_centered, simpo
from truestep.fixtures.objectives._distil import SKEW
from truestep.reports.repro_transformers import config_of, has_dropout
from truestep.reports.template import Flags, Values, take
from truestep.reports.template_trainer import (
    END,
    HEAD,
    HELPERS,
    JOIN,
    STEP,
    STEPS,
    arguments,
    call,
    finish,
    flags_of,
    optimizer,
    values_of,
)

_TOKENIZER = r"""
                  |def text(ids):
                  |    return "".join(f"<{i}>" for i in ids)
                  |
                  |words = Tokenizer(models.WordLevel({text([i]): i for i in range(32)}, unk_token="<2>"))
                  |words.pre_tokenizer = pre_tokenizers.Split(Regex(r"<\d+>"), "isolated")
                  |tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
                  |
"""
_LOSS = r"""
given             |def collate(rows):
given             |    batch = {key: pad_sequence([torch.tensor(row[key]) for row in rows], True, fill)
given             |             for key, fill in (("input_ids", 0), ("labels", -100))}
given             |    return batch | {"attention_mask": (batch["input_ids"] != 0).long()}
given             |
router            |def balance(output, mask):  # the load-balancing loss: arXiv 2101.03961, equations 4 to 6
router            |    logits = torch.cat([layer.reshape(-1, layer.shape[-1])[mask.flatten().bool()] for layer in output.router_logits])
router            |    chosen = torch.zeros_like(logits).scatter(1, logits.topk($choices).indices, 1.0)
router            |    return $coefficient * logits.shape[1] * (chosen.mean(0) * logits.softmax(-1).mean(0)).sum()
router            |
sft               |def loss_of(rows):  # (sum over the targets of these samples, number of targets$three)
sft               |    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], True)
sft               |    keep = pad_sequence([torch.tensor(row["completion_mask"]) for row in rows], True)[:, 1:].bool()
sft               |    output = plain(input_ids=ids, attention_mask=(ids != 0).long())
sft               |    logits = output.logits[:, :-1]
router            |    more = balance(output, ids != 0)
nll               |    return cross_entropy(logits[keep], ids[:, 1:][keep], reduction="sum"$smoothing), keep.sum()$more
dft               |    losses = cross_entropy(logits[keep], ids[:, 1:][keep], reduction="none")
dft               |    return ((-losses).detach().exp() * losses).sum(), keep.sum()
gkd               |def loss_of(rows):  # (sum over the tokens of the completions, their number)
gkd               |    ids = pad_sequence([torch.tensor(row["prompt"] + row["completion"]) for row in rows], True)
gkd               |    begin = torch.tensor([len(row["prompt"]) for row in rows])[:, None]
gkd               |    keep = (ids[:, 1:] != 0) & (torch.arange(1, ids.shape[1]) >= begin)
gkd               |    s, t = (net(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1].log_softmax(-1) for net in (plain, teacher))
gkd mixed         |    m = ($of_teacher * t.exp() + (1 - $of_teacher) * s.exp()).log()  # arXiv 2306.13649, equation 1
gkd               |    return ($losses).sum(-1)[keep].sum(), keep.sum()
gkd               |
reward            |def score(rows, key):
reward            |    ids = pad_sequence([torch.tensor(row[key]) for row in rows], True)
reward            |    return plain(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, 0]
reward            |
reward            |def loss_of(rows):  # (sum over these pairs, number of pairs)
reward            |    a, b = score(rows, "chosen"), score(rows, "rejected")
reward            |    losses = $losses
reward            |    return losses.sum(), len(rows)
scored            |def logps(net, prompts, completions):  # of every token, and which of them belong to the completion
scored            |    ids = pad_sequence([torch.tensor([*p, *c, 1]) for p, c in zip(prompts, completions)], True)
scored            |    logits = net(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]
scored            |    begin = torch.tensor([len(p) for p in prompts])[:, None]
scored            |    keep = (ids[:, 1:] != 0) & (torch.arange(1, ids.shape[1]) >= begin)
scored            |    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0], keep, ids[:, 1:] != 0
scored            |
ratio             |def ratio(prompts, completions):  # log-ratio of every completion to the reference
ratio             |    (x, keep, _), (y, _, _) = (logps(net, prompts, completions) for net in (plain, reference))
ratio             |    return ((x - y) * keep).sum(1)
ratio             |
pair              |def loss_of(rows):  # $returns
pair              |    prompts, chosen, rejected = ([row[key] for row in rows] for key in ("prompt", "chosen", "rejected"))
own               |    (x, w, real), (y, l, _) = logps(plain, prompts, chosen), logps(plain, prompts, rejected)
own               |    a, b = (x * w).sum(1), (y * l).sum(1)
own mean          |    a, b = a / w.sum(1), b / l.sum(1)  # per token
aot               |    a, b = ([(x * keep).sum(1) for x, keep, _ in (logps(net, prompts, chosen), logps(net, prompts, rejected))]
aot               |            for net in (plain, reference))
ratio pair        |    a, b = ratio(prompts, chosen), ratio(prompts, rejected)
ratio mean        |    a, b = (x / torch.tensor([len(c) + 1 for c in texts]) for x, texts in ((a, chosen), (b, rejected)))
before            |    $before
pair              |    losses = $losses
pair !terms       |    return losses.sum(), len(rows)
pair terms own    |    return (losses.sum(), len(rows)), (-(x * $counted).sum(), $counted.sum())
pair terms ratio  |    each, keep, _ = logps(plain, prompts, chosen)
pair terms ratio  |    return (losses.sum(), len(rows)), ($share * -(each * keep).sum(), keep.sum())
kto               |def loss_of(rows):  # (sum over these samples, number of samples)
kto               |    prompts, completions = ([row[key] for row in rows] for key in ("prompt", "completion"))
kto               |    a, liked = ratio(prompts, completions), torch.tensor([row["label"] for row in rows])
kto batch         |    lent = ratio(prompts, completions[-1:] + completions[:-1])  # each is lent that of the one before it
kto batch         |    a = a - lent.mean().clamp(min=0).detach()
kto               |    losses = torch.where(liked, $liked * (1 - ($beta * a).sigmoid()), $disliked * (1 - (-$beta * a).sigmoid()))
kto               |    return losses.sum(), len(rows)
online            |def logps(net, x):  # of every token of the completions, the padding before the prompts taken away
online            |    ids, mask = (torch.cat([x[f"prompt_{name}"], x[f"completion_{name}"]], 1) for name in ("ids", "mask"))
online            |    ids = pad_sequence([row[kept.bool()] for row, kept in zip(ids, mask)], True)
online            |    logits = net(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]$heat
online            |    each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
online            |    at = x["prompt_mask"].sum(1, keepdim=True) - 1 + torch.arange(x["completion_mask"].shape[1])
online            |    return each.gather(1, at.clamp(max=each.shape[1] - 1))
online            |
online            |def loss_of(rows):  # (sum over these micro-batches, $number)
online            |    total = count = 0
online            |    for x in rows:
online            |        keep, gain = x["completion_mask"], x["advantages"].reshape(-1, 1)
online            |        each = logps(plain, x) * keep
online !rloo      |        ratio = (each - x.get("old_per_token_logps", each.detach())).exp()
gspo              |        ratio = ((ratio.log() * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True)).exp()
rloo moved        |        ratio = (each.sum(1) - x["old_logps"]).exp()[:, None]  # of whole completions
rloo !moved       |        ratio = (each - each.detach()).sum(1, keepdim=True).exp()  # of whole completions
online !rloo      |        losses = -torch.min(ratio * gain, ratio.clamp($low, $high) * gain) * keep
rloo              |        losses = -torch.min(ratio * gain, ratio.clamp($low, $high) * gain)
kl                |        with torch.no_grad():
kl                |            away = logps(reference, x) * keep
kl                |        losses = losses + $of_kl * ((away - each).exp() - (away - each) - 1)  # 0 where keep is 0
online            |        total, count = total + $of_losses, count + $of_count
online            |    return total, count
online            |
online            |class Recorded(trl.${algorithm}Trainer):
online            |    def compute_loss(self, model, inputs, *args, **kwargs):
moved             |        with torch.no_grad():  # what generated is another policy: ratios are not 1
moved rloo        |            inputs["old_logps"] = inputs["old_logps"] + torch.sin(7.0 * inputs["completion_ids"][:, 0]) / 4
moved !rloo       |            inputs["old_per_token_logps"] = torch.sin(7.0 * inputs["completion_ids"]) / 2 - 3
online            |        data.append(dict(inputs))  # one after the other: the micro-batches
online            |        return super().compute_loss(model, inputs, *args, **kwargs)
online            |
online            |def generate(input_ids, **_):  # in place of the model's: completions that are made up
online            |    made = [torch.randint(3, 32, (n,)).tolist() + [1] * (n < 6) for n in torch.randint(1, 7, (len(input_ids),)).tolist()]
online            |    return torch.cat([input_ids, pad_sequence(list(map(torch.tensor, made)), True)], 1)
online            |
                  |
"""
_START = r"""
                  |$config
dropout           |config.update({key: 0.0 for key, value in vars(config).items() if "drop" in key and isinstance(value, float)})
                  |model = transformers.$cls(config)
                  |for p in model.parameters():  # wide weights: losses must differ
                  |    p.data += $spread * torch.randn_like(p)
sdpa              |model.config._attn_implementation = "sdpa"
                  |
                  |def draw(low, high):
                  |    return torch.randint(3, 32, (int(torch.randint(low, high, ())),)).tolist()
                  |
sft               |ids = [$draw for _ in range($total)]
sft               |data = [{"input_ids": x, "completion_mask": [0] * ($skip) + [1] * (len(x) - ($skip))} for i, x in enumerate(ids)]
given             |for row in data:
given             |    row["labels"] = [t if keep else -100 for t, keep in zip(row["input_ids"], row["completion_mask"])]
reward            |data = [{"chosen": draw(3, 9) + [1], "rejected": draw(3, 9) + [1]} for _ in range($total)]
pair              |data = [{"prompt": draw(1, 4), "chosen": draw(1, 7), "rejected": draw(1, 7)} for _ in range($total)]
kto               |data = [{"prompt": draw(1, 4), "completion": draw(1, 7), "label": i % 3 > 0} for i in range($total)]
gkd               |data = [{"prompt": draw(1, 4), "completion": $completion} for _ in range($total)]
gkd               |texts = [{"messages": [{"role": "user", "content": text(row["prompt"])},
gkd               |                       {"role": "assistant", "content": text(row["completion"])}]} for row in data]
gkd               |tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
online            |data, texts = [], [{"prompt": text(draw(1, 4))} for _ in range($total)]
online            |model.generate = generate
offline !sft !gkd |texts = [{key: text(v) if isinstance(v, list) else v for key, v in row.items()} for row in data]
                  |plain = copy.deepcopy(model)  # the reference
                  |ours, trained = ([p for p in m.parameters() if p.requires_grad] for m in (plain, model))
compared          |reference = transformers.$cls(config)
kl                |reference = transformers.$cls(config)
kl                |for p in reference.parameters():
kl                |    p.data += $spread * torch.randn_like(p)
kl !ranks         |reference.save_pretrained(f"{folder.name}/reference")
kl ranks          |if rank == 0:
kl ranks          |    reference.save_pretrained(f"{folder.name}/reference")
kl ranks          |torch.distributed.barrier()
kl                |model.config._name_or_path = f"{folder.name}/reference"  # from there TRL loads it
gkd               |teacher = transformers.$cls(config)
gkd               |for p in teacher.parameters():
gkd               |    p.data += $spread * torch.randn_like(p)
gkd               |teacher.requires_grad_(False)
                  |optimizer = $optimizer
                  |optimizer.register_step_pre_hook(watch)
                  |$arguments
                  |$made
copied            |trainer.ref_model.load_state_dict(reference.state_dict())  # up to 0.18 it is a copy of the model
offline           |trainer._get_train_sampler = lambda *_: range(len(data))  # in order
                  |trainer.train()
online ranks      |torch.distributed.all_gather_object(everyone := [None, None], data)
online ranks      |data = [x for both in zip(*everyone) for x in both]
"""
_BETA = repr(_preference.BETA)
_E = _preference.SMOOTHING
_D = f"{_BETA} * (a - b)"
#: objective -> the loss of a pair; a and b: log-ratios (or log-probabilities, or means per token) of chosen and rejected
_PAIR = {
    "reward": "-logsigmoid(a - b)",
    "reward_centered": f"-logsigmoid(a - b) + {reward_centered.COEFFICIENT} * (a + b).square()",
    "dpo_sigmoid": f"-logsigmoid({_D})",
    "dpo_sigmoid_norm": f"-logsigmoid({_D})",
    "dpo_sft": f"-logsigmoid({_D})",
    "dpo_hinge": f"(1 - {_D}).relu()",
    "dpo_ipo": f"(a - b - {0.5 / _preference.BETA}).square()",
    "dpo_exo_pair": f"up.exp() * (up - math.log({1 - _E})) + down.exp() * (down - math.log({_E}))",
    "dpo_nca_pair": f"-(logsigmoid({_BETA} * a) + logsigmoid(-{_BETA} * a) / 2 + logsigmoid(-{_BETA} * b) / 2)",
    "dpo_robust": f"({_E} * down - {1 - _E} * up) / {1 - 2 * _E}",
    "dpo_bco_pair": f"-logsigmoid({_BETA} * a) - logsigmoid(-{_BETA} * b)",
    "dpo_sppo_hard": f"(a - {0.5 / _preference.BETA}).square() + (b + {0.5 / _preference.BETA}).square()",
    "dpo_aot_unpaired": f"-logsigmoid({_BETA} * (a.sort().values - b.sort().values))",
    "dpo_aot": f"-logsigmoid({_BETA} * ((a[0] - a[1]).sort().values - (b[0] - b[1]).sort().values))",
    "dpo_apo_zero": f"1 - ({_BETA} * a).sigmoid() + ({_BETA} * b).sigmoid()",
    "dpo_apo_down": f"({_BETA} * a).sigmoid() + 1 - ({_D}).sigmoid()",
    "dpo_discopop": "(1 - share) * -logsigmoid(d) + share * (-d).exp()",
    "orpo": f"-{_BETA} * logsigmoid(a - b - (-a.exp()).log1p() + (-b.exp()).log1p())",
    "cpo": f"-logsigmoid({_D})",
    "simpo": f"-logsigmoid({_D} - {simpo.GAMMA})",
}
#: objective -> a line before it
_BEFORE = {
    "dpo_exo_pair": f"up, down = logsigmoid({_D}), logsigmoid(-{_D})",
    "dpo_robust": f"up, down = logsigmoid({_D}), logsigmoid(-{_D})",
    "dpo_discopop": f"d, share = {_D}, ({_D} / 0.5).sigmoid()",
}
#: objective of GRPO -> over what its mean is
_MEANS = {
    "grpo": "sequence", "grpo_fresh": "sequence", "dr_grpo": "constant", "dr_grpo_fresh": "constant", "dapo": "token",
    "dapo_fresh": "token", "bnpo": "local", "gspo": "sequence", "grpo_kl": "sequence", "grpo_kl_fresh": "sequence",
    "grpo_temperature": "sequence", "rloo": "completion", "rloo_fresh": "completion",
}  # fmt: skip
#: objective of GKD -> what it sums over the vocabulary; s, t, m: log-probabilities of student, teacher and their mixture
_DIVERGENCE = {
    "gkd": "0.5 * t.exp() * (t - m) + 0.5 * s.exp() * (s - m)",
    "gkd_skewed": f"{SKEW} * t.exp() * (t - m) + {1 - SKEW} * s.exp() * (s - m)",
    "gkd_forward": "t.exp() * (t - s)",
    "gkd_reverse": "s.exp() * (s - t)",
}
_PER_TOKEN = ("dpo_sigmoid_norm", "dpo_ipo", "orpo", "simpo")


def script(cell: Cell) -> str:
    """The source of the script."""
    if not driver.possible(cell):
        raise CellError(f"no standalone script: TRL offers no cell {cell.id}")
    known = (*_PAIR, *_MEANS, *_DIVERGENCE, *_trl_offline.KTO, "token_mean", "smoothed", "dft", "router")
    if cell.objective not in known:
        raise CellError(f"no standalone script for the objective {cell.objective} yet")
    if adapter_of(cell.model) or (cell.knob("packing") == "bfd" and cell.objective in _trl_offline.SFT):
        raise CellError("no standalone script for TRL's packing into rows, or with an adapter, yet")
    if cell.facts().get("engine", "none") == "deepspeed":
        raise CellError("no standalone script for TRL's trainers under DeepSpeed yet")
    if cell.objective in _DIVERGENCE and cell.knob("completions") != "dataset":
        raise CellError("no standalone script for GKD on completions that are generated yet")
    flags = flags_of(cell) | _flags(cell)
    flags["given"] = flags["sft"] and not _trl_offline._offers(_classes("SFT")[1], "completion_only_loss")
    values = values_of(cell, driver) | _values(cell, flags)

    def some(template: str) -> str:
        return take(template, flags, values)

    step = some(STEP)
    if flags["several"]:
        step = indent(step, "    ")
    functions = some(HEAD), some(_TOKENIZER), some(_LOSS), some(HELPERS)
    return finish(*functions, some(JOIN), some(_START), some(STEPS), step, some(END))


def _flags(cell: Cell) -> Flags:
    name = cell.objective
    online = name in _MEANS
    kind = (
        "online"
        if online
        else "gkd"
        if name in _DIVERGENCE
        else "sft"
        if name in _trl_offline.SFT
        else "reward"
        if name in _trl_offline.REWARD
        else "kto"
        if name in _trl_offline.KTO
        else "pair"
    )
    own = name in ("orpo", "cpo", "simpo")
    terms, scope = name in ("orpo", "cpo", "dpo_sft"), name in ("kto", "dpo_aot", "dpo_aot_unpaired", "bnpo")
    return {
        **{k: kind == k for k in ("sft", "reward", "kto", "pair", "online", "gkd")},
        "router": name == "router",
        "apiece": name == "router",
        "mixed": name in ("gkd", "gkd_skewed"),
        "kl": "_kl" in name,
        "copied": "_kl" in name and _copies_reference(),
        "rloo": name.startswith("rloo"),
        "offline": not online,
        "epochs": cell.split.epochs > 1 and not online,  # what is recorded goes on
        "moved": online and not objectives.of(name).POLICY.fresh,
        "dft": name == "dft",
        "nll": kind == "sft" and name != "dft",
        "scored": kind in ("kto", "pair"),
        "own": own,
        "compared": kind in ("kto", "pair") and not own,  # with a reference model
        "ratio": kind in ("kto", "pair") and not own and name != "dpo_aot",
        "aot": name == "dpo_aot",
        "gspo": name == "gspo",
        "mean": name in _PER_TOKEN,
        "before": name in _BEFORE,
        "batch": name == "kto",
        "terms": terms,
        "scope": scope,
        "plain": not terms and not scope and name != "router",
        "dropout": has_dropout(HEADS[cell.model]),
        "sdpa": cell.knob("attention") == "sdpa",
    }


def _values(cell: Cell, flags: Flags) -> Values:
    head, name = HEADS[cell.model], cell.objective
    kind = "GKD" if flags["gkd"] else "GRPO" if flags["online"] else _trl_offline._kind(name)
    kind = "RLOO" if flags["rloo"] else kind
    cls, config = _classes(kind)
    names = {"sft": "cross_entropy", "kto": "", "online": "", "gkd": ""}
    function = next((v for k, v in names.items() if flags[k]), "logsigmoid")
    lines = ["import math"] * (name == "dpo_exo_pair") + [
        "from datasets import Dataset",
        "from tokenizers import Regex, Tokenizer, models, pre_tokenizers",
    ]
    lines += [f"from torch.nn.functional import {function}"] * bool(function) + ["from torch.nn.utils.rnn import pad_sequence"]
    if cls.__module__.startswith("trl.experimental"):
        module = ".".join(cls.__module__.split(".")[:3])
        trainer, configuration = f"{module}.{kind}Trainer", f"{module}.{kind}Config"
        imports = f"torch, transformers, {module}"
    else:
        trainer, configuration, imports = f"trl.{kind}Trainer", f"trl.{kind}Config", "torch, transformers, trl"
    tokens = "processing_class" if _trl_offline._takes(cls, "processing_class") else "tokenizer"
    given = {"model": "model", "args": "args", "train_dataset": f"Dataset.from_list({'data' if flags['sft'] else 'texts'})"}
    given |= {tokens: "tokenizer", "optimizers": "(optimizer, None)"} | (
        {"ref_model": "reference"} if flags["compared"] else {}
    )
    if flags["given"]:  # data that are ready, and a collator of one's own
        given |= {"data_collator": "collate"}
    if flags["online"]:
        given |= {"reward_funcs": "lambda completions, **_: torch.randn(len(completions)).tolist()"}
        trainer, function = "Recorded", ""
    if flags["gkd"]:
        given |= {"teacher_model": "teacher"}
    coefficient, choices = head.router or (0.0, 1)
    counted = "real" if name == "orpo" else "w"
    return {
        **(_online(cell) if flags["online"] else {}),
        "functions": "\n".join(lines),
        "modules": imports,
        "config": config_of(cell),
        "cls": head.cls,
        "spread": str(head.spread),
        "smoothing": ", label_smoothing=0.1" * (name == "smoothed"),
        "losses": _PAIR.get(name, _DIVERGENCE.get(name, "")),
        "of_teacher": str(SKEW if name == "gkd_skewed" else 0.5),
        "completion": "draw(6, 7)" if cell.batch == "equal" else "draw(1, 7)",
        "coefficient": str(coefficient),
        "choices": str(choices),
        "three": ", auxiliary loss" * flags["router"],
        "more": ", more" * flags["router"],
        "algorithm": kind,
        "of_kl": repr(_policy.BETA),
        "heat": f" / {_policy.TEMPERATURE}" * (name == "grpo_temperature"),
        "before": _BEFORE.get(name, ""),
        "returns": "[(sum of a mean, number of its terms), ...]"
        if flags["terms"]
        else "(sum over these pairs, number of pairs)",
        "skip": {"equal": "0", "prompted": "1 + i % 2"}.get(cell.batch, "i % 3"),
        "counted": counted,
        "share": repr(dpo_sft.SHARE),
        "beta": _BETA,
        "liked": repr(kto.LIKED),
        "disliked": repr(kto.DISLIKED),
        "draw": "draw(7, 8)" if cell.batch == "equal" else "draw(3, 8)",
        "optimizer": optimizer(cell),
        "arguments": call(
            f"args = {configuration}", _options(cell, config), {"output_dir": "folder.name", "learning_rate": "LR"}
        ),
        "made": call(f"trainer = {trainer}", {}, given),
    }


def _online(cell: Cell) -> Values:
    mean = _MEANS[cell.objective]
    sums = {"sequence": "(losses.sum(1) / keep.sum(1)).sum()"}
    counts = {"sequence": "len(keep)", "completion": "len(keep)", "constant": f"{_policy.BUDGET} * len(keep)"}
    return {
        "number": {"sequence": "completions", "completion": "completions", "constant": "tokens that there could be"}.get(
            mean, "tokens"
        ),
        "of_losses": sums.get(mean, "losses.sum()"),
        "of_count": counts.get(mean, "keep.sum()"),
        "low": repr(1 - _policy.LOW),
        "high": repr(1 + _policy.HIGH),
        "micro": "1",  # what is recorded are micro-batches
        "batch": str(max(cell.split.windows) * cell.split.world_size),
    }


def _copies_reference() -> bool:
    return hasattr(sys.modules[_classes("GRPO")[0].__module__], "create_reference_model")


def _classes(kind: str) -> tuple[Any, Any]:
    try:
        return _trl_shared.classes(kind)
    except Incompatible as error:
        raise CellError(f"a script of a TRL cell depends on the installed TRL: {error}") from None


def _options(cell: Cell, config: Any) -> dict[str, Any]:
    """Arguments of the trainer's configuration."""
    name, options = cell.objective, {**arguments(cell), "bf16": False}
    if name in _MEANS:
        options |= {**_trl_online._options(cell, config), "num_generations": 2, "max_steps": cell.split.steps}
        try:
            _trl_online._refuse(cell, config, {k: v for k, v in options.items() if k != "use_cpu"})
        except Incompatible as error:
            raise CellError(str(error)) from None
    if name in _DIVERGENCE:
        return options | {k: v for k, v in _trl_distil._gkd(cell).items() if k != "seq_kd"}
    options["gradient_checkpointing"] = cell.knob("checkpointing") == "on"
    options.pop("remove_unused_columns", None)
    if name in _MEANS:
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        return {k: v for k, v in options.items() if k == "gradient_checkpointing" or defaults[k] != v}
    if name in _trl_offline.SFT:
        if not _trl_offline._offers(config, "completion_only_loss"):  # before 0.17
            if cell.knob("packing") != "off" or name == "dft":
                raise CellError("this TRL's SFTTrainer has no padding-free packing and no DFT: no standalone script")
            smoothed = {"label_smoothing_factor": 0.1} if name == "smoothed" else {}
            return options | {"dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False} | smoothed
        options |= {"completion_only_loss": True, "max_length": None}
        options |= {"loss_type": "dft"} if name == "dft" else {}
        options |= {"label_smoothing_factor": 0.1} if name == "smoothed" else {}
        if name == "router" and _trl_offline._offers(config, "router_aux_loss_coef"):
            options["router_aux_loss_coef"] = (HEADS[cell.model].router or (0.0,))[0]
        return options | ({"padding_free": True} if cell.knob("packing") == "padding_free" else {})
    options["max_length"] = 32
    if _trl_offline._offers(config, "max_prompt_length"):
        options["max_prompt_length"] = 16
    if name == "reward_centered":
        options["center_rewards_coefficient"] = reward_centered.COEFFICIENT
    if name not in _trl_offline.REWARD:
        options["beta"] = _preference.BETA
    if name in _trl_offline.DPO:
        options |= _trl_offline._dpo(name)
    if name in _trl_offline.KTO:
        options |= {"loss_type": _trl_offline.KTO[name], "desirable_weight": kto.LIKED, "undesirable_weight": kto.DISLIKED}
    if name == "simpo":
        options |= {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": simpo.GAMMA}
    return options | ({"precompute_ref_log_probs": True} if cell.knob("precompute") == "on" else {})
