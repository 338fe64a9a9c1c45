"""The standalone script of an OpenRLHF cell: SFT, DPO and reward models by their command lines (see ``repro.py``).

``repro_openrlhf_pairs.py`` has what is special to preference pairs, ``template_openrlhf.py`` what all of them share.
"""

from __future__ import annotations

from truestep.fixtures.cell import Cell, CellError
from truestep.fixtures.drivers import Incompatible
from truestep.fixtures.drivers import openrlhf as driver
from truestep.fixtures.heads import HEADS
from truestep.reports import repro_openrlhf_pairs as pairs
from truestep.reports import template_openrlhf as shared
from truestep.reports.template import Values, take

SFT = ("response_mean", "whole_mean")
OBJECTIVES = (*SFT, *pairs.OBJECTIVES)

_ANSWERS = r"""
               |
               |def draw(step):  # (prompt, response) of 16 samples
               |    random, answers = torch.Generator().manual_seed(${drawn}10 * step + 11), []
               |    for i, ids in enumerate(torch.randint(3, 32, (16, 7), generator=random).tolist()):
               |        n = $length
               |        begin = $begin
whole          |        answers.append((ids[:begin], ids[begin : n + 1]))
!whole         |        answers.append((ids[:begin], ids[begin:n] + [1]))  # 1 ends a sequence
               |    return answers
               |
               |def row_of(prompt, response):
whole          |    return {"input": text(prompt + response)}
!whole         |    return {"input": text(prompt) + " ", "output": text(response)}  # as they are joined: the space keeps the words apart
               |
               |def loss_of(part):  # (sum, number) over these tokens
               |    total, count = 0.0, 0
               |    for prompt, response in part:
               |        ids = torch.tensor([prompt + response])
               |        logits = exact(ids).logits[0, :-1].log_softmax(-1)
whole          |        begin = 0
!whole         |        begin = len(prompt) - 1
               |        total = total - logits[begin:].gather(1, ids[0, begin + 1 :, None]).sum()
               |        count += ids.shape[1] - 1 - begin
               |    return total, count
"""


def script(cell: Cell) -> str:
    """The source of the script; raises CellError for what has none."""
    if cell.objective not in OBJECTIVES:
        raise CellError(f"no standalone script for OpenRLHF's {cell.objective} yet; there is one for {', '.join(OBJECTIVES)}")
    if driver.version() is None:
        raise CellError("no standalone script: its arguments are those of the installed openrlhf, and there is none")
    if cell.knob("dtype") != "fp32":
        raise CellError(
            "no standalone script in half precision: rounding of the model is more than what a script could tell from an error"
        )
    if not driver.possible(cell):
        raise CellError(f"no standalone script: OpenRLHF offers no cell {cell.id}")
    try:
        if cell.objective in pairs.OBJECTIVES:
            return pairs.script(cell)
        flags = {**shared.flags_of(cell), "whole": cell.objective == "whole_mean"}
        return take(shared.HEAD + _ANSWERS.strip("\n") + shared.TAIL, flags, {**shared.values_of(cell), **_values(cell)})
    except Incompatible as error:
        raise CellError(f"no standalone script: {error}") from None


def _values(cell: Cell) -> Values:
    """Lengths as in ``fixtures/batches.py``."""
    even = cell.batch == "equal" or HEADS[cell.model].even
    least = 2 if cell.batch == "prompted" else 1
    length = f"max({least}, (1, 5, 2, 6, 3, 6, 2)[(i + step) % 7])"
    begin = f"1 + max({least - 1}, min(n - 1, i % 3))"
    return {"units": "trained tokens", "length": "6" if even else length, "begin": "1" if cell.batch == "equal" else begin}
