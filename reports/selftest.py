"""How often truestep is right: seeded and random faults found and named, clean cells accused, what can be seen at all.

Everything is computed by running cells through the same workers, checks and diagnosis as a probe does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from random import Random
from typing import Any

from truestep.fixtures.cell import Cell, parse
from truestep.fixtures.drivers import versions_of
from truestep.fixtures.faults import Fault, drawn, faults_of, plain
from truestep.fixtures.workers import Pool
from truestep.patches.deepspeed import reverse
from truestep.probes.pairs import random_cells
from truestep.reports.known import explain, predicted
from truestep.reports.verdict import SENSITIVITY, Verdict

Record = dict[str, Any]
SOURCES: dict[str, tuple[str, ...]] = {
    "accelerate": ("truestep.fixtures.faults.accelerate",),
    "torch": ("truestep.fixtures.faults.plain", "truestep.fixtures.faults.parallel"),
    "deepspeed": ("truestep.fixtures.faults.deepspeed", *reverse.MODULES),
    "transformers": ("truestep.fixtures.faults.transformers",),
    "trl": ("truestep.fixtures.faults.trl",),
    "llamafactory": ("truestep.fixtures.faults.llamafactory",),
    "openrlhf": ("truestep.fixtures.faults.openrlhf", "truestep.fixtures.faults.openrlhf_rl"),
}
DRAWN = "truestep.fixtures.faults.drawn"
SIZES = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: errors from this size on must be found, by dtype
MUST = SENSITIVITY


@dataclass(frozen=True)
class Trial:
    """One fault in one cell. ``found``: the cell is wrong with it; ``named``: and the right word stands beside it.

    only: no check is red but those that the fault names (so that with these switched off the cell is green)
    said: what the diagnosis said; size: of a random error, 0 for others
    """

    fault: str
    kind: str
    probe: str
    cell: str
    found: bool
    named: bool
    only: bool
    verdict: str
    said: str
    checks: tuple[str, ...] = ()
    size: float = 0.0
    dtype: str = "fp32"
    silent: bool = False  # the diagnosis says that it cannot tell


@dataclass
class Scores:
    versions: dict[str, str] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    random: list[Trial] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # faults whose cell cannot run here, with the reason
    clean: dict[str, dict[str, int]] = field(default_factory=dict)  # framework -> verdict -> cells
    dtypes: dict[str, int] = field(default_factory=dict)  # clean cells judged, by framework and dtype
    alarms: list[str] = field(default_factory=list)
    nearest: dict[str, float] = field(default_factory=dict)  # framework -> largest figure / bound of a clean gradient
    weights: float = 0.0  # float32: largest error of an effective weight of a random fault, in units of its own doubt
    half: float = 0.0  # half precision, where rounding is alike in many numbers: the same, absolute
    study: list[str] = field(default_factory=list)  # what the margin of the tolerance must be
    repeated: tuple[int, int] = (0, 0)  # (cells run twice in different processes, those with the same figures)

    @property
    def told(self) -> list[Trial]:
        """Random faults of a size that must be caught, that were, and of which the diagnosis does not say "cannot tell"."""
        return [t for t in self.random if t.size >= MUST[t.dtype] and t.found and (t.named or not t.silent)]

    @property
    def ok(self) -> bool:
        must = [t for t in self.random if t.size >= MUST[t.dtype]]
        return (
            not self.alarms
            and sum(t.named for t in self.told) >= 0.95 * len(self.told)
            and self.weights < 3
            and all(t.found and t.only for t in self.trials)
            and (not self.trials or sum(t.named for t in self.trials) >= 0.95 * len(self.trials))
            and all(t.found for t in must)
            and self.repeated[0] == self.repeated[1]
        )


Say = Callable[[str], None]


def run(
    frameworks: Iterable[str],
    *,
    clean: int = 300,
    random: int = 150,
    seed: int = 0,
    fault: str = "",
    say: Say = lambda text: None,
) -> Scores:
    """Run the self-test on what is installed. ``fault``: only seeded faults whose name holds this text."""
    scores = Scores()
    for framework in frameworks:
        with Pool(framework) as pool, Pool(framework, confirm=False) as bare:
            passed = _clean(scores, pool, framework, clean, seed, say) if not fault else []
            _seeded(scores, bare, framework, fault, say)
            if framework == "torch" and not fault:
                _random(scores, bare, passed, random, seed, say)
            if not fault:
                with Pool(framework, confirm=False) as second:
                    _repeat(scores, bare, second, framework, passed, say)
            scores.versions.update(bare.versions or pool.versions)
        if framework == "torch" and not fault:
            say("torch: noise of other splits, orders and weights")
            from truestep.reports import tolerance

            scores.study = tolerance.study(random_cells("torch", min(120, max(1, clean)), seed + 5)).lines()
    return scores


# --- seeded faults ------------------------------------------------------------------------------------------


def _seeded(scores: Scores, pool: Pool, framework: str, only: str, say: Say) -> None:
    faults = [f for f in faults_of(*SOURCES[framework]) if only in f.name]
    jobs: list[tuple[Fault, Cell, Future[Record], Future[Record]]] = []
    for fault in faults:
        for cell in map(parse, fault.cells):
            jobs.append((fault, cell, pool.submit([cell])[cell], pool.submit([cell], within=fault.name)[cell]))
    for fault, cell, before, with_it in jobs:
        clean, red = before.result(), with_it.result()
        if clean["verdict"] in ("skipped", "incompatible") or red["verdict"] == "skipped":
            scores.skipped.append(f"{fault.short} in {cell.id}: {clean['reason'] or red['reason']}")
            continue
        if clean["verdict"] != "pass" and not _foreseen(cell, framework):
            scores.alarms.append(f"{cell.id} (clean cell of {fault.short}): {clean['verdict']} {clean['reason']}")
        reds = _reds(red)
        kinds, words = _kinds(red)
        found = red["verdict"] == "wrong" and reds[:1] == list(fault.checks[:1])
        also = {c.split()[0] for c in fault.checks}
        must = set(fault.kinds or [fault.checks[0].split()[0]])
        named = found and must <= set(kinds) <= must | also and fault.words in words
        scores.trials.append(
            Trial(
                fault.name, fault.kind, fault.probe, cell.id, found, named, set(reds) <= set(fault.checks),
                red["verdict"], words or red["reason"], tuple(dict.fromkeys(reds)), dtype=cell.knob("dtype"),
            )
        )  # fmt: skip
    say(f"{framework}: {len(faults)} seeded faults in {len(jobs)} cells")


def _reds(record: Record) -> list[str]:
    return [c["name"] for c in record["checks"] if not c["figure"] <= c["bound"]]


def kinds_of(trial: Trial) -> tuple[str, ...]:
    """What a seeded fault must be called."""
    return next(f.kinds for modules in SOURCES.values() for f in faults_of(*modules) if f.name == trial.fault)


def _kinds(record: Record) -> tuple[tuple[str, ...], str]:
    diagnosis = record.get("diagnosis") or {}
    return tuple(diagnosis.get("kinds", ())), str(diagnosis.get("words", ""))


def _foreseen(cell: Cell, framework: str) -> bool:
    return bool(predicted(cell, versions_of(framework)))


def _is_known(cell: Cell, record: Record) -> bool:
    """Whether advisories explain all that is red in this cell."""
    fields = {k: v for k, v in record.items() if k in Verdict.__dataclass_fields__}
    verdict = explain(Verdict.from_json(fields), cell, record.get("versions") or versions_of(cell.framework))
    return bool(verdict.advisory) and not verdict.besides


# --- clean cells -------------------------------------------------------------------------------------------


def _clean(scores: Scores, pool: Pool, framework: str, count: int, seed: int, say: Say) -> list[Cell]:
    """Random cells that no advisory predicts to be wrong: whatever is red among them is a false alarm
    (or a bug that nobody has named: each is listed)."""
    cells = [
        c for c in random_cells(framework, 2 * count if framework != "torch" else count, seed) if not _foreseen(c, framework)
    ]
    futures = pool.submit(cells[:count])
    verdicts = scores.clean.setdefault(framework, {})
    passed = []
    for number, (cell, future) in enumerate(futures.items(), 1):
        record = future.result()
        if record["verdict"] == "wrong" and _is_known(cell, record):
            continue  # what the installed model is found to do decides, and that was not known before it ran
        verdicts[record["verdict"]] = verdicts.get(record["verdict"], 0) + 1
        if record["verdict"] in ("pass", "not-triggered"):
            key = f"{framework} {cell.knob('dtype')}"
            scores.dtypes[key] = scores.dtypes.get(key, 0) + 1
        if record["verdict"] == "pass":
            passed.append(cell)
        if record["verdict"] in ("wrong", "error", "timeout"):
            scores.alarms.append(f"{cell.id}: {record['verdict']}: {record['reason']}")
        for check in record["checks"]:
            if check["name"] == "gradient" and check["bound"] and check["figure"] <= check["bound"]:
                used = check["figure"] / check["bound"]
                scores.nearest[framework] = max(used, scores.nearest.get(framework, 0.0))
        if number % 500 == 0:
            say(f"{framework}: {number} of {len(futures)} clean cells, {len(scores.alarms)} alarms")
    say(f"{framework}: {len(futures)} clean cells, {len(scores.alarms)} alarms")
    return passed


# --- random faults -----------------------------------------------------------------------------------------


def _random(scores: Scores, pool: Pool, passed: list[Cell], count: int, seed: int, say: Say) -> None:
    """Faults drawn from the seed, in cells that passed; clipping is left out, as it hides a common factor rightly."""
    draw = Random(seed + 1)
    cells = [c for c in passed if c.knob("clipping") == "off" and c.knob("parallel") == "plain"]
    if not cells:
        return
    jobs: list[tuple[str, str, float, Cell, Future[Record]]] = []
    for number in range(count):
        cell = draw.choice(cells)
        shape = ("everything", "one_parameter", "micro_weights", "token_weights", "mask", "pair")[number % 6]
        size: float = draw.choice(SIZES)
        if shape == "mask":
            size = float(draw.randint(1, 8))
        if shape == "pair":
            size = 1.0
            cell = cell.but(windows=(4, 4), batch="ragged", dtype="fp32", grad_accum_dtype="fp32", optimizer="sgd",
                            objective="token_mean", weight_decay="all", schedule="constant", checkpoint="none")  # fmt: skip
        argument = f"{draw.randrange(10**6)}:{size:g}"
        jobs.append((shape, argument, size, cell, pool.submit([cell], within=f"{DRAWN}:{shape}({argument})")[cell]))
    for shape, argument, size, cell, future in jobs:
        record = future.result()
        found = record["verdict"] == "wrong"
        named = found and _rightly(shape, argument, cell, record)
        if found and shape == "micro_weights":
            error = _weight_error(argument, cell, record)
            if cell.knob("dtype") == "fp32":
                scores.weights = max(scores.weights, error / max(float(record["diagnosis"]["doubt"]), 1e-7))
            else:
                scores.half = max(scores.half, error)
        scores.random.append(
            Trial(
                shape, "random", "any", cell.id, found, named, True, record["verdict"], f"({argument}) {_kinds(record)[1] or record['reason']}",
                size=size, dtype=cell.knob("dtype"), silent=(record.get("diagnosis") or {}).get("sure") == "cannot tell",
            )
        )  # fmt: skip
    say(f"torch: {len(jobs)} random faults")


def _rightly(shape: str, argument: str, cell: Cell, record: Record) -> bool:
    """Whether kinds, weights and places are those that the draw calls for."""
    import torch
    from truestep.fixtures import problem, reference

    kinds, _ = _kinds(record)
    diagnosis = record["diagnosis"]
    size = float(argument.partition(":")[2])
    close = max(3 * float(diagnosis["doubt"]), 1e-5, 0.02 * size)
    if shape == "everything":
        weights = [w for row in diagnosis["weights"] for w in row]
        return kinds == ("scaled",) and bool(weights) and all(abs(w - 1 - size) <= close for w in weights)
    if shape == "one_parameter":
        return kinds == ("scaled",) and diagnosis["where"] == [drawn.parameter_of(argument, reference.trained(cell))]
    if shape == "micro_weights":
        single = 1 in cell.split.windows and cell.split.world_size == 1
        return bool(kinds) and set(kinds) <= ({"re-weighted", "scaled"} if single else {"re-weighted"})
    mask = problem.batch(cell, 0).mask
    if shape == "token_weights":
        wanted = torch.tensor(drawn.factors(argument, mask.numel())).view(mask.shape)
        seen = [
            (w, float(wanted[i, t]))
            for i, row in enumerate(diagnosis["tokens"])
            for t, w in enumerate(row)
            if w is not None and mask[i, t]
        ]
        return "re-weighted" in kinds and bool(seen) and all(abs(a - b) <= close for a, b in seen)
    if shape == "mask":
        return kinds == ("dropped",) and _lost(cell, diagnosis) == set(drawn.masked(argument, mask))
    both = [_fault(name) for name in drawn.pair_of(argument)]
    wanted_kinds = {kind for f in both for kind in f.kinds or [f.checks[0]]}
    return wanted_kinds == set(kinds) and {f.checks[0] for f in both} <= set(_reds(record))


def _lost(cell: Cell, diagnosis: dict[str, Any]) -> set[tuple[int, int]]:
    """The trained tokens that a diagnosis says have weight 0, by (row, position), in the first step."""
    from truestep.fixtures import batches, problem

    mask = problem.batch(cell, 0).mask
    trained = {(int(i), int(t)) for i, t in mask.nonzero()}
    unit, near = diagnosis["unit"], max(3 * float(diagnosis["doubt"]), 1e-3)
    if unit in ("token", "position"):
        return {(i, t) for i, t in trained if abs(diagnosis["tokens"][i][t] or 0.0) <= near}
    if unit == "sample":
        return {(i, t) for i, t in trained if abs(diagnosis["samples"][i]) <= near}
    if unit == "micro-batch":
        ranks = batches.deal(cell.split, 0)
        gone = {
            row
            for r, rank in enumerate(ranks)
            for k, rows in enumerate(rank)
            if abs(diagnosis["weights"][r][k]) <= near
            for row in rows
        }
        return {(i, t) for i, t in trained if i in gone}
    return set()


def _fault(name: str) -> Fault:
    found: Fault = getattr(plain, name).fault
    return found


def _weight_error(argument: str, cell: Cell, record: Record) -> float:
    """How far the effective weights lie from the drawn ones, at the most."""
    diagnosis = record["diagnosis"]
    if not diagnosis["weights"] or len(set(cell.split.windows)) > 1:
        return 0.0
    ranks, window = cell.split.world_size, cell.split.windows[0]
    drawn_weights = drawn.factors(argument, ranks * window)
    seen = [w for row in diagnosis["weights"] for w in row]
    return float(max(abs(a - b) for a, b in zip(seen, drawn_weights, strict=True)))


# --- repeatability -----------------------------------------------------------------------------------------


def _repeat(scores: Scores, first: Pool, second: Pool, framework: str, passed: list[Cell], say: Say) -> None:
    """The same cells, clean and with a fault, in other processes: every figure and word must be the same."""
    faults = [f for f in faults_of(*SOURCES[framework])][::4]
    jobs: list[tuple[Cell, dict[str, str]]] = [(c, {}) for c in passed[:40]]
    jobs += [(parse(f.cells[0]), {"within": f.name}) for f in faults]
    pairs = [(first.submit([c], **extra)[c], second.submit([c], **extra)[c]) for c, extra in jobs]
    same = 0
    for a, b in pairs:
        left, right = a.result(), b.result()
        same += all(json.dumps(left[k]) == json.dumps(right[k]) for k in ("verdict", "checks", "diagnosis"))
    scores.repeated = (scores.repeated[0] + len(pairs), scores.repeated[1] + same)
    say(f"{framework}: {same} of {len(pairs)} cells repeat bit for bit in other processes")


# --- words ---------------------------------------------------------------------------------------------------


def rate(trials: Iterable[Trial], of: Callable[[Trial], bool]) -> str:
    some = list(trials)
    hits = sum(of(t) for t in some)
    return f"{hits} of {len(some)}" + (f" ({100 * hits / len(some):.1f} %)" if some else "")


def lines(scores: Scores) -> list[str]:
    """What `truestep selftest` prints; Markdown, so that it can be published as it is."""
    out = ["# How often truestep is right", "", f"Versions: {', '.join(f'{n} {v}' for n, v in scores.versions.items())}.", ""]
    faults = {t.fault for t in scores.trials}
    if faults:
        named = rate(scores.trials, lambda t: t.named)
        single = {t.fault for t in scores.trials} - {t.fault for t in scores.trials if len(t.checks) > 1}
        out += [
            f"**Seeded faults**: {len(faults)}, in {len(scores.trials)} cells."
            f" Found: {rate(scores.trials, lambda t: t.found)}. Rightly named: {named}"
            f' (of {sum("unexplained" in kinds_of(t) for t in scores.trials)} cells the right name is "unexplained").'
            f" Green again with the named checks switched off: {rate(scores.trials, lambda t: t.only)};"
            f" {len(single)} faults are seen by one check alone.",
            "",
            "| kind | faults | cells | found | rightly named |",
            "|---|---|---|---|---|",
        ]
        out += _table(scores.trials, lambda t: t.kind)
        out += [
            "",
            "| probe | faults | cells | found | rightly named |",
            "|---|---|---|---|---|",
            *_table(scores.trials, lambda t: t.probe),
            "",
        ]
    for trial in scores.trials:
        if not (trial.found and trial.named and trial.only):
            what = "not found" if not trial.found else "wrongly named" if not trial.named else "seen by other checks too"
            out.append(
                f"- {what}: {trial.fault.rpartition(':')[2]} in `{trial.cell}`: {trial.verdict}, {', '.join(trial.checks)}: {trial.said}"
            )
    if scores.random:
        out += ["", *_curve(scores)]
    if scores.clean:
        total = sum(n for verdicts in scores.clean.values() for n in verdicts.values())
        out += ["", f"**Clean cells**: {total}, false alarms: {len(scores.alarms)}.", "", "| framework | cells |", "|---|---|"]
        out += [
            f"| {f} | {', '.join(f'{n} {v}' for v, n in sorted(verdicts.items()))} |" for f, verdicts in scores.clean.items()
        ]
        out += ["", "Judged, by dtype: " + ", ".join(f"{n} {k}" for k, n in sorted(scores.dtypes.items())) + "."]
        out += [
            "The nearest that a clean gradient came to its bound: "
            + ", ".join(f"{u:.0%} ({f})" for f, u in scores.nearest.items())
            + "."
        ]
    out += [f"- false alarm or unknown bug: {alarm}" for alarm in scores.alarms]
    out += ["", *scores.study] if scores.study else []
    if scores.repeated[0]:
        out += [
            "",
            f"**Repeatability**: {scores.repeated[1]} of {scores.repeated[0]} cells give the same figures and words, bit for bit, in other processes.",
        ]
    if scores.skipped:
        out += ["", f"Not run here: {len(scores.skipped)}.", *(f"- {s}" for s in scores.skipped)]
    return [*out, ""]


def _table(trials: list[Trial], key: Callable[[Trial], str]) -> list[str]:
    rows = []
    for group in dict.fromkeys(map(key, trials)):
        some = [t for t in trials if key(t) == group]
        rows.append(
            f"| {group} | {len({t.fault for t in some})} | {len(some)} | {rate(some, lambda t: t.found)} | {rate(some, lambda t: t.named)} |"
        )
    return rows


def _curve(scores: Scores) -> list[str]:
    """Detection against the size of the error, by shape and dtype, and the smallest size from which all are found."""
    must = [t for t in scores.random if t.size >= MUST[t.dtype]]
    told = scores.told
    out = [
        f"**Random faults** of the plain trainer: {len(scores.random)}, drawn from the seed, in cells that pass and do not clip"
        f" (clipping rightly hides a common factor). Found, of those at or above the size that must be caught"
        f" ({', '.join(f'{v:g} in {d}' for d, v in MUST.items())}): {rate(must, lambda t: t.found)}."
        f" Of these, rightly named: {rate((t for t in told), lambda t: t.named)}; in {len(must) - len(told)} more the diagnosis says that it cannot tell."
        f" Effective weights lie within {scores.weights:.1f} times their stated doubt of the drawn ones in float32,"
        f" within {scores.half:.2g} in half precision.",
        "",
        "Found, against the relative size of the error (a dot: none drawn):",
        "",
        "| fault | dtype | " + " | ".join(f"{s:g}" for s in SIZES) + " | all found from |",
        "|---|---|" + "---|" * (len(SIZES) + 1),
    ]
    for shape in ("everything", "one_parameter", "micro_weights", "token_weights"):
        for dtype in MUST:
            some = [t for t in scores.random if t.fault == shape and t.dtype == dtype]
            if not some:
                continue
            cells = []
            for size in SIZES:
                at = [t for t in some if t.size == size]
                cells.append(f"{sum(t.found for t in at)}/{len(at)}" if at else ".")
            drawn_sizes = [s for s in SIZES if any(t.size == s for t in some)]
            sure = [s for s in drawn_sizes if all(t.found for t in some if t.size >= s)]
            out.append(f"| {shape} | {dtype} | {' | '.join(cells)} | {f'{sure[0]:g}' if sure else '-'} |")
    for shape in ("mask", "pair"):
        some = [t for t in scores.random if t.fault == shape]
        if some:
            out += [
                "",
                f"{'Tokens masked out at random' if shape == 'mask' else 'Pairs of faults'}: found {rate(some, lambda t: t.found)}, rightly named {rate(some, lambda t: t.named)}.",
            ]
    missed = [t for t in must if not t.found or (t in told and not t.named)]
    out += [
        "",
        *(f"- {'not found' if not t.found else 'wrongly named'}: {t.fault} in `{t.cell}`: {t.said}" for t in missed[:40]),
    ]
    return out
