"""The standalone script of an OpenRLHF cell over preference pairs: DPO and reward models (see ``repro_openrlhf.py``)."""

from __future__ import annotations

from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import _openrlhf_offline
from truestep.fixtures.objectives import _preference, reward_margin
from truestep.reports import template_openrlhf as shared
from truestep.reports.template import Flags, Values, take

OBJECTIVES = (*_openrlhf_offline.DPO, *_openrlhf_offline.REWARD)

_PAIRS = r"""
               |
               |def draw(step):  # (length of the prompt, prompt + chosen, prompt + rejected$more) of 16 pairs; 1 ends a sequence
               |    random, pairs = torch.Generator().manual_seed(${drawn}10 * step + 19), []
               |    for i, (a, b) in enumerate(torch.randint(3, 32, (16, 2, $longest), generator=random).tolist()):
               |        n = $prompts[i % $nprompts]
               |        ends = n + $chosen[(i + step) % $nchosen], n + $rejected[(i + step) % $nrejected]
               |        pairs.append((n, a[: ends[0] - 1] + [1], a[:n] + b[n : ends[1] - 1] + [1]$appended))
               |    return pairs
               |
dpo            |def row_of(n, chosen, rejected):  # as they are joined: the space keeps the words apart
dpo            |    return {"prompt": text(chosen[:n]) + " ", "chosen": text(chosen[n:-1]), "rejected": text(rejected[n:-1])}
reward !margin |def row_of(n, chosen, rejected):
reward !margin |    return {"chosen": text(chosen[:-1]), "rejected": text(rejected[:-1])}
margin         |def row_of(n, chosen, rejected, margin):
margin         |    return {"chosen": text(chosen[:-1]), "rejected": text(rejected[:-1]), "margin": margin}
               |
dpo            |def logps(model, ids, n):  # of the completion's tokens
dpo            |    found = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
dpo            |    return found.gather(-1, torch.tensor(ids[1:])[:, None])[n - 1 :, 0]
reward         |def score(ids):
reward         |    return exact(torch.tensor([ids])).logits[0, 0]
               |
               |def loss_of(part):  # (sum, number) over these pairs
               |    total = 0.0
dpo            |    for n, chosen, rejected in part:
dpo            |        w, l = logps(exact, chosen, n), logps(exact, rejected, n)
dpo            |        x, y = logps(plain, chosen, n).detach(), logps(plain, rejected, n).detach()
dpo            |        margin = (w - x).sum() - (l - y).sum()
reward !margin |    for _, chosen, rejected in part:
margin         |    for _, chosen, rejected, margin in part:
               |        total = total + $loss
               |    return total, len(part)
"""
_BETA, _E = _preference.BETA, _preference.SMOOTHING
_SIGMOID = f"-logsigmoid({_BETA} * margin)"
#: objective -> the loss of a pair: ``fixtures/objectives`` has the sources
_LOSSES = {
    "dpo_sigmoid": _SIGMOID,
    "dpo_ipo_sum": f"(margin - 1 / (2 * {_BETA})) ** 2  # arXiv 2310.12036, of whole completions",
    "dpo_smoothed": f"(-{1 - _E} * logsigmoid({_BETA} * margin) - {_E} * logsigmoid(-{_BETA} * margin))",
    "dpo_ftx": f"({_SIGMOID} - {_openrlhf_offline.DPO['dpo_ftx']['nll_loss_coef']} * w.mean())",
    "reward": "-logsigmoid(score(chosen) - score(rejected))  # = log(1 + exp(rejected - chosen))",
    "reward_margin": "-logsigmoid(score(chosen) - score(rejected) - margin)  # arXiv 2307.09288, equation 2",
}


def script(cell: Cell) -> str:
    """The source of the script; raises Incompatible where this release has no such option."""
    return take(shared.HEAD + _PAIRS.strip("\n") + shared.TAIL, _flags(cell), _values(cell))


def _flags(cell: Cell) -> Flags:
    dpo = cell.objective in _openrlhf_offline.DPO
    own = {"dpo": dpo, "refers": dpo, "reward": not dpo, "head": not dpo, "margin": cell.objective == "reward_margin"}
    return {**shared.flags_of(cell), **own, "logsigmoid": "logsigmoid" in _LOSSES[cell.objective]}


def _values(cell: Cell) -> Values:
    lengths = {"prompts": _preference.PROMPTS, "chosen": _preference.CHOSEN, "rejected": _preference.REJECTED}
    margins, margin = reward_margin.MARGINS, cell.objective == "reward_margin"
    return {
        **shared.values_of(cell),
        **{name: str(value) for name, value in lengths.items()},
        **{f"n{name}": str(len(value)) for name, value in lengths.items()},
        "longest": str(max(_preference.PROMPTS) + max(*_preference.CHOSEN, *_preference.REJECTED)),
        "units": "pairs",
        "other": str(cell.seed + _preference.REFERENCE + 1),
        "more": ", margin" if margin else "",
        "appended": f", {margins}[i % {len(margins)}]" if margin else "",
        "loss": _LOSSES[cell.objective],
    }
