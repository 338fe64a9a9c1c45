"""What the HTML report says without JavaScript: the verdict in a sentence, releases, counts, findings as text, environments. Strings of HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

Document = Mapping[str, Any]
#: of every verdict: the sign that stands for it wherever its colour does, and what it means
SIGNS: Mapping[str, tuple[str, str]] = {
    "wrong": ("✗", "not the step that the whole batch makes"),
    "error": ("!", "the framework failed in a way that it does not announce"),
    "timeout": ("T", "did not come to its end in time"),
    "by-design": ("§", "differs, and the documentation of that version says so"),
    "pass": ("✓", "right, within a tolerance derived from rounding"),
    "not-triggered": ("?", "the path in question was not entered, or rounding hides too much: no answer"),
    "incompatible": ("⊘", "the framework refuses this configuration, and says so"),
    "skipped": ("–", "left out, for a reason that is told"),
}
#: findings count where the step is not right; a documented choice is told apart
RED = ("wrong", "error", "timeout")
# control characters, and those that turn or hide text, are shown by their number
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def text(value: object) -> str:
    """Any value as HTML text that can neither be markup nor look like what it is not."""
    return escape(_UNSEEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", str(value)), quote=True)


def https(link: str) -> bool:
    try:
        return urlsplit(link).scheme == "https" and bool(urlsplit(link).hostname) and not _UNSEEN.search(link)
    except ValueError:
        return False


def parts(document: Document, order: Mapping[str, Any]) -> dict[str, str]:
    """What the template has places for."""
    return {
        "title": text(document["title"]),
        "head": _head(document, order),
        "legend": _legend(document),
        "summary": _summary(document, order),
        "findings": _findings(document, order),
        "environments": _environments(document, order),
        "footer": f"<p>Written by truestep {text(document['truestep'])} on {text(_date(document['generated']))}. Schema {text(document['schema'])}.</p>",
    }


def counts(document: Document, environment: Mapping[str, Any]) -> Counter[str]:
    return Counter(document["verdicts"][v] for v in environment["verdicts"]["verdict"])


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sentence(document: Document) -> str:
    """The verdict on everything, as one sentence of plain text."""
    environments, found = document["environments"], document["findings"]
    total: Counter[str] = sum((counts(document, one) for one in environments), Counter())
    red = [one for one in found if one["verdict"] in RED]
    if not total:
        return "Nothing was judged."
    if not red:
        answered = total["pass"] + total["by-design"]
        return f"No findings in {plural(len(environments), 'environment')}." if answered else "No cell gave an answer."
    where = {number for one in red for number in one["environments"]}
    return f"{plural(len(red), 'finding')} in {len(where)} of {plural(len(environments), 'environment')}."


def _head(document: Document, order: Mapping[str, Any]) -> str:
    environments, found = document["environments"], document["findings"]
    total: Counter[str] = sum((counts(document, one) for one in environments), Counter())
    red = [one for one in found if one["verdict"] in RED]
    said = []
    if red:
        wrong = [one for one in red if one["verdict"] == "wrong"]
        new = sum(not one["advisory"] for one in wrong)
        if len(wrong) > new:
            said.append(plural(len(wrong) - new, "known bug"))
        if new:
            said.append(f"{new} not known")
        if len(red) > len(wrong):
            said.append(f"{plural(len(red) - len(wrong), 'error')} without a verdict")
    if choices := sum(one["verdict"] == "by-design" for one in found):
        said.append(f"{plural(choices, 'documented choice')} besides")
    lines = [f"<h1>{text(sentence(document))}</h1>"]
    if said:
        lines.append(f'<p class="lede">{text(", ".join(said))}.</p>')
    lines += [_releases(document, order), _bar(total), _facts(document), _warnings(document)]
    return "\n".join(lines)


def _releases(document: Document, order: Mapping[str, Any]) -> str:
    """Every release that was run, the newest first, with how many findings it has; a link that filters the page."""
    groups: dict[str, dict[tuple[str, bool], list[int]]] = {}
    for number in order["columns"]:
        name, one = order["primary"][number], document["environments"][number]
        if name:
            version = str(one["packages"].get(name, "of unknown version"))
            groups.setdefault(name, {}).setdefault((version, bool(one["patched"])), []).append(number)
    lines = []
    for name, releases in groups.items():
        tiles = []
        for (version, patched), numbers in releases.items():
            some = [f for f in document["findings"] if any(str(n) in f["environments"] for n in numbers)]
            red = sum(f["verdict"] in RED for f in some)
            judged: Counter[str] = sum((counts(document, document["environments"][n]) for n in numbers), Counter())
            kind = "wrong" if red else "by-design" if some else "pass" if judged["pass"] else "skipped"
            says = plural(red, "finding") if red else "documented choices only" if some else "no findings" if judged["pass"] else "no answer"
            newest = " newest" if any(n in order["newest"] for n in numbers) else ""
            href = "#version=" + quote(f"{name} {version}", safe="")
            tiles.append(
                f'<li><a class="tile{newest}" href="{text(href)}" aria-label="{text(name)} {text(version)}{", patched" * patched}: {says}; show in the matrix">'
                f'<span class="num">{text(version)}</span><span class="chip v-{kind}"><b>{SIGNS[kind][0]}</b> {red or (0 if judged["pass"] else "–")}</span>'
                + ('<span class="note">patched</span>' if patched else "") + "</a></li>"
            )  # fmt: skip
        lines.append(f'<div class="line"><dt>{text(name)}</dt><dd><ul class="tiles">{"".join(tiles)}</ul></dd></div>')
    if not lines:
        return ""
    return f'<h2 class="small">Findings by release, newest first</h2><dl class="releases">{"".join(lines)}</dl>'


def _bar(total: Mapping[str, int]) -> str:
    whole = sum(total.values())
    if not whole:
        return ""
    names = [*SIGNS, *(name for name in total if name not in SIGNS)]
    left, boxes, items = 0.0, [], []
    for name in names:
        if not total.get(name):
            continue
        share = 100 * total[name] / whole
        boxes.append(f'<rect class="fill-{text(name)}" x="{left:.3f}%" y="0" width="{max(share - 0.12, 0.05):.3f}%" height="10"/>')
        left += share
        sign, means = SIGNS.get(name, ("?", ""))
        items.append(f'<li title="{text(means)}"><span class="chip v-{text(name)}"><b>{sign}</b></span> <span class="num">{total[name]:,}</span> {text(name)}</li>')
    return (
        f'<svg class="bar" width="100%" height="10" aria-hidden="true">{"".join(boxes)}</svg>'
        f'<ul class="counts" aria-label="{whole:,} verdicts">{"".join(items)}<li class="muted"><span class="num">{whole:,}</span> verdicts in all</li></ul>'
    )


def _date(stamp: str) -> str:
    return stamp.replace("T", " ").replace("Z", " UTC")[:24]


def _commits(document: Document) -> list[str]:
    """The commits of truestep that the verdicts rest on, each told where it was changed."""
    own = [one["environment"].get("truestep") or {} for one in document["environments"]]
    return list(dict.fromkeys(f"{t['commit'][:12]}{' (changed)' if t.get('dirty') else ''}" for t in own if t.get("commit")))


def _facts(document: Document) -> str:
    facts = [("Written", _date(document["generated"])), ("truestep", document["truestep"])]
    if commits := _commits(document):
        facts.append(("commit" if len(commits) == 1 else "commits", ", ".join(commits)))
    facts.append(("cells", f"{len(document['cells']):,}"))
    return '<dl class="facts">' + "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in facts) + "</dl>"


def _warnings(document: Document) -> str:
    partial = [one["name"] for one in document["environments"] if not one["complete"]]
    said = []
    if partial:
        said.append(f"<p><b>Not complete:</b> {text(', '.join(partial))}. What is missing there says nothing.</p>")
    if document["problems"]:
        lines = "".join(f"<li>{text(line)}</li>" for line in document["problems"])
        said.append(f"<details><summary>{plural(len(document['problems']), 'line')} of the results could not be read</summary><ul>{lines}</ul></details>")
    return f'<div class="warning" role="note">{"".join(said)}</div>' if said else ""


def _legend(document: Document) -> str:
    rows = "".join(
        f'<div><dt><span class="chip v-{name}"><b>{sign}</b></span> {name}</dt><dd>{text(means)}</dd></div>' for name, (sign, means) in SIGNS.items()
    )
    return rows + '<div><dt><span class="chip v-none"><b>·</b></span> not run</dt><dd>nobody asked this question there: it says nothing</dd></div>'


def _summary(document: Document, order: Mapping[str, Any]) -> str:
    """The matrix in few numbers, for paper and for browsers without JavaScript: verdicts of each environment."""
    total: Counter[str] = sum((counts(document, one) for one in document["environments"]), Counter())
    names = [name for name in [*SIGNS, *(n for n in total if n not in SIGNS)] if total[name]]
    head = "".join(f'<th scope="col" class="n">{SIGNS.get(n, ("?", ""))[0]} {text(n)}</th>' for n in names)
    rows = []
    for number in order["columns"]:
        one = document["environments"][number]
        found = counts(document, one)
        cells = "".join(f'<td class="n">{found[name] or "·"}</td>' for name in names)
        version = one["packages"].get(order["primary"][number], "")
        rows.append(f'<tr><th scope="row">{text(one["name"])}</th><td>{text(order["primary"][number])} {text(version)}</td>{cells}</tr>')
    return (
        '<table class="plain"><caption>Verdicts of each environment</caption><thead><tr><th scope="col">environment</th><th scope="col">release</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def known(document: Document, finding: Mapping[str, Any]) -> str:
    """What is known upstream of a finding, as HTML in one paragraph."""
    advisory = next((a for a in document["advisories"] if a["id"] == finding["advisory"]), None)
    if advisory is None:
        if finding["advisory"]:
            return f"Known as {text(finding['advisory'])}."
        return "Not known: new." if finding["verdict"] in ("wrong", "by-design") else "No verdict: the step itself failed."
    spans = "; ".join(
        (f"since {a}" if advisory["by_design"] else f"from {a}, not fixed in any release") if not b
        else f"from {a} until {b}" if advisory["by_design"] else f"from {a}, fixed in {b}"
        for a, b in advisory["affected"]
    )  # fmt: skip
    links = " ".join(f'<a href="{text(link)}" rel="noreferrer">{text(link)}</a>' if https(link) else text(link) for link in advisory["links"])
    kind = "Documented choice" if advisory["by_design"] else "Known bug"
    return f"{kind} {text(advisory['id'])}: {text(advisory['title'])} ({text(advisory['framework'])} {text(spans)}). {links}"


def _findings(document: Document, order: Mapping[str, Any]) -> str:
    """Findings as text; with JavaScript cards stand in their place."""
    items = []
    for number in order["findings"]:
        one = document["findings"][number]
        words = (one.get("diagnosis") or {}).get("words") or one["reason"]
        items.append(
            f'<li><h3><span class="chip v-{text(one["verdict"])}"><b>{SIGNS.get(one["verdict"], ("?", ""))[0]}</b> {text(one["verdict"])}</span> {text(words)}</h3>'
            f"<p>{text(one['question'])}</p><p>{known(document, one)}</p>"
            f"<p>{plural(one['cells'], 'cell')} in {plural(len(one['environments']), 'environment')}.</p><pre><code>{text(one['command'])}</code></pre></li>"
        )
    return f'<ol class="static">{"".join(items)}</ol>' if items else "<p>There are none.</p>"


def _environments(document: Document, order: Mapping[str, Any]) -> str:
    rows = []
    for number in order["columns"]:
        one, snapshot = document["environments"][number], document["environments"][number]["environment"]
        own = snapshot.get("truestep") or {}
        packages = "".join(f"<li>{text(k)} <b>{text(v)}</b></li>" for k, v in one["packages"].items() if k not in ("python", "platform"))
        machine = [snapshot.get("system") or one["packages"].get("platform"), snapshot.get("processor") or snapshot.get("machine")]
        cores = snapshot.get("cores")
        if cores:
            machine.append(plural(int(cores), "core"))
        commit = f"{own.get('commit', '')[:12]} {'changed' if own.get('dirty') else 'clean'}" if own.get("commit") else own.get("code", "")
        stand_ins = "".join(f"<li>{text(line)}</li>" for line in one["stand_ins"])
        cells = (
            f'<ul class="packages">{packages}</ul>',
            text(snapshot.get("python") or one["packages"].get("python", "")),
            "<br>".join(text(line) for line in machine if line),
            "<br>".join(text(_date(stamp)) for stamp in (one["started"], one["finished"]) if stamp) or '<span class="muted">not told</span>',
            ("complete" if one["complete"] else "<b>not complete</b>") + (", patched" if one["patched"] else ""),
            f"<code>{text(commit)}</code>" if commit else '<span class="muted">not told</span>',
            f"<details><summary>{len(one['stand_ins'])}</summary><ul>{stand_ins}</ul></details>" if stand_ins else '<span class="muted">none</span>',
        )
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr id="environment-{number}" tabindex="-1"><th scope="row">{text(one["name"])}</th>{body}</tr>')
    if not rows:
        return "<p>There are none.</p>"
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("environment", "packages", "python", "machine", "started, finished", "state", "truestep", "stand-ins")
    )
    return f'<table class="plain environments"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
