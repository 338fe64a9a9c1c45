"""The report for people, in the terminal: a table by family, then each distinct finding once."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any

from truestep.fixtures.cell import Cell
from truestep.fixtures.drivers import unverified
from truestep.reports.verdict import VERDICTS, Diagnosis, Verdict

Row = Mapping[str, Any]


def finding(question: str, verdict: Verdict, cells: int = 1, again: str = "") -> list[str]:
    """In this order: the question, the figure, what was done wrong, the known bug and its cure, how to reproduce.

    again : the call that reproduces it, where it is no cell of a framework
    """
    count = f"  [{cells} cells]" if cells > 1 else ""
    lines = [f"{verdict.verdict.upper()}: {question}{count}"]
    lines.append(f"  {verdict.reason}")
    if verdict.diagnosis is not None:
        lines += _weights(verdict.diagnosis)
        lines.append(f"  what was done: {verdict.diagnosis.words}")
        if verdict.diagnosis.why:
            lines.append(f"  how sure: {verdict.diagnosis.sure}: {verdict.diagnosis.why}")
    if again:
        return [*lines, f"  reproduce: {again}"]
    if verdict.verdict in ("wrong", "by-design"):
        lines += _known(verdict)
    lines.append(f"  reproduce: truestep run {verdict.id}" + (" --patch" if verdict.patches else ""))
    return lines


def _weights(diagnosis: Diagnosis) -> list[str]:
    """Of the micro-batches, and of samples and tokens where they are known and not all alike."""
    return [*_of_micro_batches(diagnosis), *_of_samples(diagnosis), *_of_tokens(diagnosis)]


def _of_samples(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.samples:
        return []
    text = " ".join(short(w) for w in diagnosis.samples)
    return textwrap.wrap(
        f"effective weights of the samples, 1 is right: {text}", 110, initial_indent="  ", subsequent_indent="    "
    )


def _of_tokens(diagnosis: Diagnosis) -> list[str]:
    """One row for each sample; a dot where nothing is trained. Left out where the samples say it all."""
    rows = diagnosis.tokens
    alike = all(max(own) - min(own) < 1e-2 for row in rows if (own := [w for w in row if w is not None]))
    if not rows or (diagnosis.samples and alike):
        return []
    cells = [["." if w is None else short(w) for w in row] for row in rows]
    width = max(len(c) for row in cells for c in row)
    lines = [f"    sample {i + 1:>2}: " + " ".join(f"{c:>{width}}" for c in row) for i, row in enumerate(cells)]
    return ["  effective weights of the tokens, 1 is right (prompt and padding: 0, a dot where not looked for):", *lines]


def _of_micro_batches(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.weights:
        return []
    parts = sum(len(rank) for rank in diagnosis.weights)
    groups = []
    for rank, weights in enumerate(diagnosis.weights):
        text = "(" + ", ".join(short(w) for w in weights) + f")/{parts}"
        groups.append(text if len(diagnosis.weights) == 1 else f"rank {rank} {text}")
    return [f"  effective weights of the micro-batches: {'  '.join(groups)}   expected 1/{parts} each"]


def _known(verdict: Verdict) -> list[str]:
    from truestep.patches import advisories

    for advisory in advisories():
        if advisory.id == verdict.advisory:
            fixed = ", ".join(f"fixed in {f}" if f else "not fixed in any release" for _, f in advisory.affected)
            if advisory.by_design:
                fixed = f"since {advisory.affected[0][0]}"
            lines = [
                f"  {'documented choice' if advisory.by_design else 'known bug'}: {advisory.id}: {advisory.title} ({fixed})"
            ]
            lines.append(f"    {advisory.links[0]}")
            if verdict.besides:
                lines.append(f"    besides, and not explained by it: {', '.join(verdict.besides)}")
            if advisory.patch:
                upgrade = "upgrade, or " if any(fixed for _, fixed in advisory.affected[-1:]) else ""
                lines.append(f"    cure: {upgrade}pytest probes/ --patch, or truestep.patch() before training")
            return lines
    new = "  not known: no advisory explains this; it looks new."
    scripted = find_spec(f"truestep.reports.repro_{verdict.cell['framework']}") is not None  # not for a framework from outside
    return [f"{new} Standalone script: truestep repro {verdict.id}" if scripted else new]


def short(value: float) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def summary(
    rows: Sequence[Row],
    missing: Mapping[str, tuple[int, str]],
    deselected: int,
    *,
    expected: bool = False,
    patched: bool = False,
    width: int = 100,
) -> Iterator[str]:
    yield ""
    yield " truestep ".center(width, "=")
    for framework, (count, reason) in missing.items():
        yield f"{framework}: {count} cells not run: {reason}"
    if not rows:
        return
    yield from _environment(rows, patched)
    if patched:
        yield from _patches(rows)
    yield ""
    yield from table(rows)
    yield from _findings(rows, expected)
    if expected:
        yield from _gaps(rows)
    yield from _not_tested(rows, deselected)


def _environment(rows: Sequence[Row], patched: bool) -> Iterator[str]:
    versions: dict[str, str] = {}
    for row in rows:
        versions |= {name: version for name, version in (row.get("versions") or {}).items() if name not in versions}
    text = " · ".join(f"{name} {version}" for name, version in versions.items())
    yield text + (" · patched (--patch)" if patched else "")
    for name, version in versions.items():
        if said := unverified(name, version):
            yield f"not verified: {said}"


def _patches(rows: Sequence[Row]) -> Iterator[str]:
    """What became of every patch: applied, declined (this version does not need it) or refused (unknown source)."""
    said = dict.fromkeys(line for row in rows for line in row.get("patches", ()))
    for state in ("applied", "refused", "declined"):
        for line in said:
            if line.startswith(state):
                yield f"  patch {line}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Cells by family and verdict; columns that would be empty are left out."""
    families = list(dict.fromkeys(r["family"] for r in rows))
    shown = [v for v in VERDICTS if v in ("pass", "wrong") or any(r["verdict"] == v for r in rows)]
    first = max(6, *(len(f) for f in families))
    yield f"{'family':<{first}}  {'cells':>6}" + "".join(f"  {v:>{max(5, len(v))}}" for v in shown)
    counts = {f: Counter(r["verdict"] for r in rows if r["family"] == f) for f in families}
    counts["total"] = Counter(r["verdict"] for r in rows)
    for family, by_verdict in counts.items():
        cells = "".join(f"  {by_verdict[v] or '.':>{max(5, len(v))}}" for v in shown)
        yield f"{family:<{first}}  {sum(by_verdict.values()):>6}{cells}"


def representatives(rows: Sequence[Row]) -> list[Row]:
    """The simplest cell of every finding: the one that is shown."""
    return [_simplest(some) for some in _groups(rows)]


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["verdict"] in ("wrong", "by-design", "error", "timeout"):
            groups.setdefault(finding_key(row), []).append(row)
    return list(groups.values())


def _simplest(rows: Sequence[Row]) -> Row:
    return min(rows, key=lambda r: (len(r["cell"]["knobs"]), len(r["id"]), r["id"]))


def _findings(rows: Sequence[Row], expected: bool) -> Iterator[str]:
    groups = _groups(rows)
    if not groups:
        return
    yield ""
    yield f"{len(groups)} distinct finding{'s' if len(groups) > 1 else ''}" + (
        " (findings that an advisory predicts count as expected)" if expected else ""
    )
    for some in groups:
        simplest = _simplest(some)
        verdict = Verdict.from_json({k: v for k, v in simplest.items() if k in Verdict.__dataclass_fields__})
        yield ""
        yield from finding(simplest["question"], verdict, len(some))


def _gaps(rows: Sequence[Row]) -> Iterator[str]:
    """Advisories that predict selected cells of which none could be judged: neither confirmed nor refuted."""
    from truestep.reports.known import predicted

    seen: dict[str, Counter[str]] = {}
    for row in rows:
        cell = Cell.from_json(row["cell"])
        for advisory in predicted(cell, row.get("versions", {})):
            seen.setdefault(advisory.id, Counter())[row["verdict"]] += 1
    for name, counts in sorted(seen.items()):
        if not counts["wrong"] and not counts["by-design"] and not counts["pass"]:
            told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
            yield f"predicted, but could not be seen here: {name} ({told})"


def finding_key(row: Row) -> tuple[str, ...]:
    """Two cells show the same finding when one advisory, or else the same check and kind of fault, explains both."""
    if row.get("advisory"):
        return (row["verdict"], row["advisory"], *row.get("besides", ()))
    diagnosis = row.get("diagnosis")
    kinds = tuple(diagnosis["kinds"] if diagnosis else row.get("kinds", ()))
    red = next((c["name"] for c in row["checks"] if not c["figure"] <= c["bound"]), row["reason"][:40])
    knobs = row["cell"]["knobs"]
    where = tuple(f"{name}:{knobs.get(name)}" for name in ("stage", "offload_optimizer", "dtype"))
    return (row["verdict"], row["cell"]["framework"], red, *kinds, *where)


def fingerprint(row: Row) -> str:
    """What a finding is called where it must be the same in the next run: its advisory (and what that does not explain), else its verdict and
    kinds of fault (or red check). A row of a packed matrix brings it along."""
    if row.get("fingerprint"):
        return str(row["fingerprint"])
    if row.get("advisory") or row["verdict"] not in ("wrong", "by-design"):
        return "+".join([str(row.get("advisory") or row["verdict"]), *row.get("besides", ())])
    kinds = (row.get("diagnosis") or {}).get("kinds") or [c["name"] for c in row.get("checks", ()) if not c["figure"] <= c["bound"]][:1]
    return "unknown:" + "+".join(kinds)


def _not_tested(rows: Sequence[Row], deselected: int) -> Iterator[str]:
    """What gave no answer, by reason: a cell that did not run is never green."""
    silent: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["verdict"] in ("incompatible", "not-triggered", "skipped"):
            silent[(row["verdict"], _group_reason(row["reason"]))] += 1
    yield ""
    by_framework: dict[str, list[Cell]] = {}
    for row in rows:
        by_framework.setdefault(row["cell"]["framework"], []).append(Cell.from_json(row["cell"]))
    for framework, cells in by_framework.items():
        if len(cells) >= 20:
            yield coverage_line(cells, framework)
    if silent or deselected:
        yield "not tested"
        for (verdict, reason), count in silent.most_common():
            yield from textwrap.wrap(f"{count:>5} {verdict}: {reason}", 110, initial_indent=" ", subsequent_indent=" " * 8)
        if deselected:
            yield f" {deselected:>5} not selected (--quick, --cell, -k)"
    yield from _rounding(rows)
    stand_ins = list(dict.fromkeys(s for row in rows for s in row.get("stand_ins", ())))
    for text in stand_ins:
        yield f"stand-in in force: {text}"


def _rounding(rows: Sequence[Row]) -> Iterator[str]:
    """How much of its bound rounding used in the gradients that passed, and what the bounds allowed for."""
    used, noise = [], []
    for row in rows:
        for check in row["checks"] if row["verdict"] == "pass" else ():
            if check["name"] == "gradient" and check["bound"]:
                used.append(check["figure"] / check["bound"])
                noise.append(check["noise"] / check["bound"])
    if used:
        yield (f"rounding: {len(used)} gradients of cells that pass used {median(used):.0%} of their bound at the median,"
               f" {max(used):.0%} at the most (plain PyTorch: {median(noise):.0%})")  # fmt: skip


def _group_reason(reason: str) -> str:
    """Reasons that differ only in a figure are one reason."""
    return (
        reason.split(" (tolerance")[0]
        if not reason.startswith("cannot tell")
        else "cannot tell: rounding hides errors of the size to be caught"
    )


def coverage_line(cells: Iterable[Cell], framework: str) -> str:
    from truestep.probes.pairs import coverage

    held, possible = coverage(cells, framework)
    return f"pairs of values covered: {held:,} of {possible:,} possible ({100 * held / max(1, possible):.1f} %)"


def brief(verdict: Verdict) -> list[str]:
    """One cell that has no finding, in two lines."""
    worst = verdict.worst
    lines = [f"{verdict.verdict.upper()}: {verdict.id}"]
    if verdict.reason:
        lines.append(f"  {verdict.reason}")
    elif worst is not None:
        where = f" in {worst.where}" if worst.where else ""
        lines.append(f"  {len(verdict.checks)} checks; nearest to its tolerance: {worst.name} of step {worst.step + 1}, "
                     f"{worst.figure:.1e} (tolerance {worst.bound:.1e}, plain PyTorch {worst.noise:.1e}){where}")  # fmt: skip
    return lines + (_weights(verdict.diagnosis) if verdict.diagnosis is not None else [])
