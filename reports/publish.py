"""What stands in ``reports/published``: the matrix as a page that GitHub renders, as a picture, as one HTML file and as JSON.

All of it is made of the results alone, so the same results give the same bytes: the date is that of the runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from truestep.reports import grid, pack, picture, public, publish_bugs
from truestep.reports.configurations import NAMES
from truestep.reports.findings import counts, judged
from truestep.reports.grid import Column, Field, Grid
from truestep.reports.results import Environment, Results, ResultsError, Row
from truestep.reports.summary import escaped

PAGE, DOCUMENT, HTML, PICTURE = "MATRIX.md", "matrix.json", "matrix.html", "matrix.svg"
TITLE = "Which release is right under which configuration"
UNKNOWN = "not recorded"
#: columns from which on a table has its names on both sides
WIDE = 8


def files(results: Results, title: str = TITLE, hosts: Iterable[str] = ()) -> dict[str, str]:
    """name -> text. hosts: names of machines that must not appear. Raises ResultsError where nothing was judged."""
    from truestep.reports.html import render

    shown = public.public(grid.folded(results), hosts)
    if not judged(counts(row for _, row in shown)):
        raise ResultsError("nothing was judged in these results; there is nothing to publish")
    document = pack.pack(shown, title, generated=dates(shown)[1] or UNKNOWN)
    some = grid.grids(shown)
    drawn = next((one for one in some if one.framework == "deepspeed"), some[0])
    return {
        PAGE: page(shown, some, title),
        DOCUMENT: json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n",
        HTML: render(document),
        PICTURE: picture.svg(grid.coarser(drawn)),
    }


def dates(results: Results) -> tuple[str, str]:
    """When the first run that tells began and the last one ended (or began, where it was cut off); "" where none tells."""
    runs = [run for one in results.environments for run in one.runs]
    began = [run.started for run in runs if run.started]
    ended = [run.finished or run.started for run in runs if run.finished or run.started]
    return min(began, default=""), max(ended, default="")


def page(results: Results, grids: list[Grid], title: str = TITLE) -> str:
    """Markdown. results: public ones."""
    blocks = [
        [f"# {escaped(title)}"],
        [_paragraph(results)],
        [f"![Releases across, configurations down: the tables below say the same in words]({PICTURE})"],
        [f"[{HTML}]({HTML}) is the same with filters and figures (save it and open it), [{DOCUMENT}]({DOCUMENT}) the data. Written by",
         "`truestep publish results -o reports/published`, or `tox -e publish`; nothing here is edited by hand."],
        ["On this page: " + ", ".join(f"[{NAMES.get(one.framework, escaped(one.framework))}](#{_slug(one.framework)})" for one in grids)
         + ", [Environments](#environments), [What does not count](#what-does-not-count)."],
        list(_how_to_read()),
        *[list(_section(one)) for one in grids],
        ["## Environments", ""], list(_environments(results)),
        ["## What does not count", ""], list(_not_counted(results)),
    ]  # fmt: skip
    return "\n\n".join("\n".join(block).strip("\n") for block in blocks if block) + "\n"


def _paragraph(results: Results) -> str:
    told = counts(row for _, row in results)
    environments = results.environments
    cells = len({row["id"] for _, row in results})
    asked = [one for one in environments if one.rows]
    began, ended = dates(results)
    dated = [one for one in asked if any(run.started for run in one.runs)]
    when = f"They ran {_times(began, ended)}" if began else "When they ran is not recorded"
    if began and len(dated) < len(asked):
        when += f"; {len(asked) - len(dated)} of them are kept in files that hold no date, machine or commit"
    empty = len(environments) - len(asked)
    verdicts = ", ".join(f"{n:,} {verdict}" for verdict, n in told.items())
    return (
        f"One optimizer step of a tiny model in float64 by PyTorch, and the same step by the framework, in {_many(len(asked), 'environment')}"
        + (f" ({empty} more have no verdict yet)" if empty else "")
        + f": {_many(cells, 'cell')}, {_many(sum(told.values()), 'verdict')} ({verdicts}). {when}. {_machines(asked)}"
        " Right means right in the cells that were run, no more."
    )


def _machines(environments: list[Environment]) -> str:
    pythons, torches, machines = Counter[str](), Counter[str](), Counter[str]()
    for one in environments:
        pythons[_python(one) or UNKNOWN] += 1
        torches[one.packages.get("torch", UNKNOWN)] += 1
        machines[_machine(one) or UNKNOWN] += 1
    known = [name for name in machines if name != UNKNOWN]
    return f"Python {_listed(pythons)}, torch {_listed(torches)}, on {'; '.join(sorted(known or machines))}."


def _how_to_read() -> Iterator[str]:
    yield "How to read a table: a release in each column, a configuration in each row, and where they meet"
    yield ""
    yield "- `ok 12`: 12 cells were judged right and none wrong. `WRONG 3/12`: 3 of the 12 that were judged are wrong; the links name the bugs, which"
    yield "  say under which further settings. A cell is one such setting: a model, a split into micro-batches, clipping, and so on."
    yield "- `choice`: not the step of the whole batch, and the documentation of that version says so. `failed`: an error or a timeout, no answer."
    yield "- `refused`: the framework stops with an error of its own, or does not offer it. `no answer`: it ran, but the path in question was not entered,"
    yield "  or rounding hides too much, or something that it needs was missing."
    yield "- `-`: not run. `7 not run`: 7 cells that were judged in another release were not run in this one, so they say nothing here."
    yield "- `*` at a release: the run has not come to its end."


def _section(one: Grid) -> Iterator[str]:
    yield f"## {NAMES.get(one.framework, escaped(one.framework))}"
    yield ""
    if not one.rows:
        yield "No cell was judged."
        return
    heads = []
    for column in one.columns:
        parts = [escaped(column.version) + r"\*" * column.unfinished, f"({escaped(column.besides)})" if column.besides else "", "patched" * column.patched]
        heads.append("<br>".join(filter(None, parts)))
    wide = len(heads) > WIDE  # the table scrolls then, and its first column with it
    yield f"| configuration | {' | '.join(heads)} |{' configuration |' * wide}"
    yield "|---|" + "---|" * (len(heads) + wide)
    for row, fields in zip(one.rows, one.fields, strict=True):
        cells = " | ".join(_field(one.framework, column, field) for column, field in zip(one.columns, fields, strict=True))
        name = f"**{escaped(row.first)}**<br>{escaped(row.second)}"
        yield f"| {name} | {cells} |{f' {name} |' * wide}"
    disagree = [(column, name) for column in one.columns for name in column.disagree]
    if disagree:
        yield ""
        yield f"{_many(len(disagree), 'cell')} right in one environment and wrong in another of the same packages; they count as wrong:"
        yield from (f"- {escaped(column.label)}: {escaped(name)}" for column, name in disagree)
    yield ""
    yield from publish_bugs.listed(one)


def _field(framework: str, column: Column, field: Field) -> str:
    lines = {
        "wrong": [f"**WRONG** {field.wrong}/{field.judged}"], "ok": [f"ok {field.right}"], "choice": [f"choice {field.chosen}"],
        "failed": [f"failed {field.failed}", *([f"ok {field.right}"] if field.right else [])],
        "refused": [f"refused {field.refused}"], "silent": [f"no answer {field.silent}"], "": ["-"],
    }[field.state]  # fmt: skip
    lines += [publish_bugs.link(framework, bug) for bug in field.bugs]
    if field.state in ("ok", "failed") and field.chosen:
        lines.append(f"choice {field.chosen}")
    lines += [publish_bugs.link(framework, bug) for bug in field.choices]
    if field.failed and field.state != "failed":
        lines.append(f"failed {field.failed}")
    if field.missing and field.state:
        lines.append(f"{field.missing} not run")
    return "<br>".join(lines)


def _environments(results: Results) -> Iterator[str]:
    yield "| environment | packages | python, machine | run | truestep | state | cells |"
    yield "|---|---|---|---|---|---|---|"
    whole = _asked_anywhere(results)
    for one in results.environments:
        packages = ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in one.packages.items())
        judging = [run for run in one.runs if run.rows] or list(one.runs)
        began, ended = dates(Results((one,)))
        commits = list(dict.fromkeys(_commit(run.environment.get("truestep") or {}) for run in judging))
        state = [_state(one), *(["patched"] if one.patched else []), *(["a selection of cells"] if any(run.options.get("selected") for run in judging) else []),
                 *(["setup functions of its own"] if any(run.options.get("setup") for run in judging) else [])]  # fmt: skip
        frameworks = {row["cell"]["framework"] for row in one.rows.values()}
        asked = {name for framework in frameworks for name in whole[framework]}
        yield (
            f"| {escaped(one.name)} | {packages or UNKNOWN} | {', '.join(filter(None, [_python(one), _machine(one)])) or UNKNOWN} "
            f"| {_times(began, ended) if began else UNKNOWN} | {', '.join(commits)} | {', '.join(state)} "
            f"| {len(one.rows):,}{f' of {len(asked):,}' if asked else ''} |"
        )
    yield ""
    yield "Cells: how many have a verdict here, of those that any environment asked the same frameworks."


def _asked_anywhere(results: Results) -> Mapping[str, set[str]]:
    whole: dict[str, set[str]] = {}
    for _, row in results:
        whole.setdefault(row["cell"]["framework"], set()).add(row["id"])
    return whole


def _state(one: Environment) -> str:
    """A file of the first schema does not say whether its run came to an end."""
    if not any(run.started for run in one.runs):
        return f"whether complete is {UNKNOWN}"
    return "complete" if one.complete else "**unfinished**" if one.rows else "**no verdict**"


def _commit(own: Mapping[str, Any]) -> str:
    if not own.get("commit"):
        return f"{own['version']}, commit {UNKNOWN}" if own.get("version") else UNKNOWN
    state = f"state {UNKNOWN}" if own.get("dirty") is None else "changed" if own["dirty"] else "clean"
    return f"`{own['commit'][:12]}` {state}"


def _python(one: Environment) -> str:
    return str(one.last.environment.get("python", ""))


def _machine(one: Environment) -> str:
    told = one.last.environment
    cores = told.get("cores")
    parts = [told.get("system"), told.get("machine"), told.get("processor"), _many(cores, "core") if cores else ""]
    return ", ".join(str(part) for part in parts if part)


def _not_counted(results: Results, most: int = 25) -> Iterator[str]:
    """Verdicts that are no answer, by framework and reason, those of most cells first."""
    groups: dict[str, Counter[tuple[str, str]]] = {}
    for _, row in results:
        if row["verdict"] not in ("pass", "wrong", "by-design"):
            groups.setdefault(row["cell"]["framework"], Counter())[row["verdict"], _reason(row)] += 1
    yield "None of these is right or wrong: nothing is known of the step. Counted over all environments."
    for framework in sorted(groups, key=lambda name: (list(NAMES).index(name) if name in NAMES else len(NAMES), name)):
        told = groups[framework]
        by_verdict = counts({"verdict": verdict} for verdict, _ in told.elements())
        yield ""
        yield f"<details><summary>{NAMES.get(framework, escaped(framework))}: {', '.join(f'{n:,} {verdict}' for verdict, n in by_verdict.items())}</summary>"
        yield ""
        yield "| verdict | reason | verdicts |"
        yield "|---|---|---|"
        ordered = sorted(told.items(), key=lambda one: (-one[1], one[0]))
        yield from (f"| {verdict} | {escaped(reason)} | {n:,} |" for (verdict, reason), n in ordered[:most])
        if rest := ordered[most:]:
            yield f"| | {len(rest)} more reasons | {sum(n for _, n in rest):,} |"
        yield ""
        yield "</details>"


def _reason(row: Row) -> str:
    return publish_bugs.without_versions(str(row.get("reason", "")) or "no reason told")


def _times(began: str, ended: str) -> str:
    """From when to when, to the minute; the day once where it is the same."""
    (day, time), (last, end) = (stamp[:16].split("T") for stamp in (began, ended))
    return f"{day} {time} to {end} UTC" if day == last else f"{day} {time} to {last} {end} UTC"


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def _slug(framework: str) -> str:
    """The anchor that GitHub gives to the heading of that framework."""
    return "".join(c for c in NAMES.get(framework, framework).lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
