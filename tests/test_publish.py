"""The published matrix: what it says of a release, what it keeps to itself, and that the same results give the same bytes. About 15 s."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from made import DROPPED, OTHER, THIRD, first_schema, results, row
from markdown_it import MarkdownIt
from truestep.reports import compare_runs, grid, pack, publish
from truestep.reports import results as reading
from truestep.reports.public import without

from truestep.cli import main

ROOT = Path(__file__).parents[1]
KNOWN, CHOICE = "deepspeed-7967", "deepspeed-8068"
FILES = ("MATRIX.md", "matrix.json", "matrix.html", "matrix.svg")
OFFLOADED = "ZeRO-2, offload_optimizer fp32, 1 rank, accumulation"
SHARDED = "ZeRO-1 fp32, 1 rank, accumulation"
TWO = "ZeRO-0 fp32, 2 ranks, accumulation"


def release(version: str, **more: str) -> dict[str, str]:
    return {"deepspeed": version, "torch": "2.13.0", **more}


def published(folder: Path, *where: Path) -> dict[str, str]:
    """The four files by name."""
    out = folder / "published"
    assert main(["publish", *map(str, where), "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    return {name: (out / name).read_text(encoding="utf-8") for name in FILES}


def rendered(page: str) -> ET.Element:
    """The page as GitHub's Markdown makes it: CommonMark and tables, with HTML let through."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    return ET.fromstring("<page>" + body.replace("<br>", "<br/>").replace("&nbsp;", " ") + "</page>")


def said(element: ET.Element) -> str:
    return " ".join("".join(_pieces(element)).split())


def _pieces(element: ET.Element) -> Iterable[str]:
    yield " " if element.tag == "br" else element.text or ""
    for part in element:
        yield from _pieces(part)
        yield part.tail or ""


def tables(page: str) -> list[dict[tuple[str, str], str]]:
    """Of every table: (first cell of the row, heading of the column) -> text."""
    found = []
    for table in rendered(page).iter("table"):
        head = [said(cell) for cell in table.iter("th")]
        rows = [[said(cell) for cell in line.iter("td")] for line in table.iter("tr")]
        found.append({(cells[0], name): text for cells in rows if cells for name, text in zip(head[1:], cells[1:], strict=True)})
    return found


def three(folder: Path) -> Path:
    """Wrong in 0.18.9, right in 0.19.8, which judged less and has not come to its end; older: by design, refused, failed."""
    more = "deepspeed-mlp-W1-K8-stage:2-offload_optimizer:cpu"
    results(folder / "a.jsonl", [row(DROPPED, "wrong", KNOWN), row(more), row(OTHER), row(THIRD, "incompatible")], packages=release("0.18.9"))
    results(folder / "b.jsonl", [row(DROPPED), row(THIRD)], packages=release("0.19.8"), complete=None)
    results(folder / "c.jsonl", [row(DROPPED, "by-design", CHOICE), row(more, "by-design", CHOICE), row(OTHER, "timeout"), row(THIRD, "skipped")],
            packages=release("0.9.0"))  # fmt: skip
    return folder


# --- what the page says -------------------------------------------------------------------------------------


def test_a_release_and_a_configuration_meet_in_what_was_judged(tmp_path: Path) -> None:
    page = published(tmp_path, three(tmp_path / "r"))["MATRIX.md"]
    table = tables(page)[0]
    assert list(dict.fromkeys(column for _, column in table)) == ["0.9.0", "0.18.9", "0.19.8*"], "in order of version; unfinished is marked"
    assert table == {
        (OFFLOADED, "0.9.0"): "choice 2 8068", (OFFLOADED, "0.18.9"): "WRONG 1/2 7967", (OFFLOADED, "0.19.8*"): "ok 1 1 not run",
        (SHARDED, "0.9.0"): "failed 1", (SHARDED, "0.18.9"): "ok 1", (SHARDED, "0.19.8*"): "-",
        (TWO, "0.9.0"): "no answer 1", (TWO, "0.18.9"): "refused 1", (TWO, "0.19.8*"): "ok 1",
    }  # fmt: skip


def test_every_link_leads_somewhere(tmp_path: Path) -> None:
    tree = rendered(published(tmp_path, three(tmp_path / "r"))["MATRIX.md"])
    anchors = {e.attrib["id"] for e in tree.iter("a") if "id" in e.attrib}
    anchors |= {re.sub(r"[^\w-]", "", said(e).lower().replace(" ", "-")) for tag in ("h1", "h2", "h3") for e in tree.iter(tag)}
    links = [unquote(e.attrib["href"]) for e in tree.iter("a") if "href" in e.attrib]
    assert {f"#deepspeed-{KNOWN}", f"#deepspeed-{CHOICE}", "#deepspeed", "#environments"} <= set(links)
    for link in links:
        assert link.startswith("https://") or link in FILES or link.removeprefix("#") in anchors, link
    assert [e.attrib["src"] for e in tree.iter("img")] == ["matrix.svg"]


def test_a_bug_is_told_in_one_line(tmp_path: Path) -> None:
    packages = [release(v) for v in ("0.18.1", "0.18.3", "0.18.5", "0.18.9", "0.19.8")]
    for number, versions in enumerate(packages):
        wrong = versions["deepspeed"] in ("0.18.1", "0.18.3", "0.18.5")
        rows = [row(DROPPED, "wrong" if wrong else "pass", KNOWN if wrong else "", figure=0.5 + number / 100)]
        rows += [row(OTHER, "wrong", kinds=("scaled",), figure=0.125)] if number == 3 else []
        results(tmp_path / "r" / f"{number}.jsonl", rows, packages=versions)
    page = published(tmp_path, tmp_path / "r")["MATRIX.md"]
    (line,) = [text for text in page.splitlines() if f'id="deepspeed-{KNOWN}"' in text]
    for part in ("Seen in 0.18.1 to 0.18.5 (3 cells)", "fixed in deepspeed 0.19.0", "worst 0.52", "micro-batches 2 and 3 of 4 have weight 0",
                 "effective weights (1, 0, 0, 1)/4 where 1/4 each is right", f"`truestep run {DROPPED}`", "truestep.patch()", "/pull/7967"):  # fmt: skip
        assert part in line, part
    (line,) = [text for text in page.splitlines() if 'id="deepspeed-unknown-scaled"' in text]
    assert "no advisory explains it" in line and "Seen in 0.18.9 (1 cell)" in line and "worst 0.125" in line and "patch" not in line


def test_environments_of_the_same_packages_are_one_column(tmp_path: Path) -> None:
    results(tmp_path / "r" / "a.jsonl", [row(DROPPED), row(OTHER, "wrong")], packages=release("0.18.9"))
    results(tmp_path / "r" / "b.jsonl", [row(OTHER), row(THIRD)], packages=release("0.18.9", numpy="2.4.6"))
    results(tmp_path / "r" / "d.jsonl", [row(DROPPED)], packages={**release("0.18.9"), "torch": "2.9.0"})
    page = published(tmp_path, tmp_path / "r")["MATRIX.md"]
    table = tables(page)[0]
    assert list(dict.fromkeys(column for _, column in table)) == ["0.18.9 (torch 2.9.0)", "0.18.9 (torch 2.13.0)"]
    assert table[SHARDED, "0.18.9 (torch 2.13.0)"] == "WRONG 1/1 not known: dropped", "what one found wrong is not made right by another"
    assert "1 cell right in one environment and wrong in another of the same packages" in page
    assert len(tables(page)[1]) == 3 * 6, "the list of environments has all three"


def test_a_patched_environment_is_a_column_of_its_own(tmp_path: Path) -> None:
    results(tmp_path / "r" / "a.jsonl", [row(DROPPED, "wrong", KNOWN)])
    path = results(tmp_path / "r" / "b.jsonl", [row(DROPPED, patches=[f"applied {KNOWN}"])])
    path.write_text(path.read_text().replace('"patch": false', '"patch": true'))
    table = tables(published(tmp_path, tmp_path / "r")["MATRIX.md"])[0]
    assert table == {(OFFLOADED, "0.18.9"): "WRONG 1/1 7967", (OFFLOADED, "0.18.9 patched"): "ok 1"}


def test_a_partial_rerun_is_a_later_run_of_its_environment(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    results(folder / "x.jsonl", [row(DROPPED, "error"), row(OTHER)], complete=None)
    results(folder / "x-again.jsonl", [row(DROPPED)])
    first_schema(folder / "y.jsonl", [row(THIRD, "error")])
    first_schema(folder / "y-again.jsonl", [row(THIRD, versions=release("0.19.8"))])
    environments = {one.name: one for one in grid.folded(reading.read([folder])).environments}
    assert set(environments) == {"x", "y", "y-again"}, "of other packages it stays apart"
    assert {name: r["verdict"] for name, r in environments["x"].rows.items()} == {DROPPED: "pass", OTHER: "pass"}
    assert not environments["x"].complete, "a rerun of a part does not finish the whole"


def test_what_is_not_recorded_is_said_and_nothing_is_made_up(tmp_path: Path) -> None:
    made = published(tmp_path, first_schema(tmp_path / "old.jsonl", [row(DROPPED, versions={**release("0.18.9"), "python": "3.11.7"})]))
    assert "When they ran is not recorded" in made["MATRIX.md"]
    (environment,) = [t for t in tables(made["MATRIX.md"]) if ("old", "state") in t]
    assert (environment["old", "truestep"], environment["old", "run"]) == ("not recorded", "not recorded")
    assert environment["old", "state"] == "whether complete is not recorded"
    assert environment["old", "python, machine"] == "3.11.7"
    assert json.loads(made["matrix.json"])["generated"] == "not recorded"


def test_commit_and_state_of_an_environment_are_told(tmp_path: Path) -> None:
    path = results(tmp_path / "r" / "a.jsonl", [row(DROPPED)])
    results(tmp_path / "r" / "b.jsonl", [row(DROPPED), row(OTHER)], packages=release("0.19.8"))
    results(tmp_path / "r" / "c.jsonl", [], packages=release("0.19.9"), complete=None)
    commit = "0123456789" * 4
    path.write_text(path.read_text().replace('"commit": "", "dirty": null', f'"commit": "{commit}", "dirty": true'))
    page = published(tmp_path, tmp_path / "r")["MATRIX.md"]
    (environment,) = [t for t in tables(page) if ("a", "state") in t]
    assert (environment["a", "truestep"], environment["a", "state"], environment["a", "cells"]) == ("012345678901 changed", "complete", "1 of 2")
    assert (environment["b", "truestep"], environment["b", "cells"]) == ("0.1.0, commit not recorded", "2 of 2")
    assert environment["c", "state"] == "no verdict"
    assert "in 2 environments (1 more have no verdict yet): 2 cells, 3 verdicts (3 pass)" in page


def test_what_gives_no_answer_is_counted_with_its_reason(tmp_path: Path) -> None:
    for version in ("0.18.9", "0.19.8"):
        rows = [row(DROPPED), row(OTHER, "skipped", reason=f"coalesce needs deepspeed 0.19.1 or newer, this is {version}"),
                row(THIRD, "not-triggered", reason="cannot tell: the tolerance 4.0e-06 is wider than a third of the error to be caught (3.3e-06)")]  # fmt: skip
        results(tmp_path / "r" / f"{version}.jsonl", rows, packages=release(version))
    page = published(tmp_path, tmp_path / "r")["MATRIX.md"].split("## What does not count")[1]
    assert "| skipped | coalesce needs deepspeed … or newer, this is … | 2 |" in page
    assert "| not-triggered | cannot tell: rounding hides errors of the size to be caught | 2 |" in page


VERDICTS = ("pass", "wrong", "by-design", "incompatible", "not-triggered", "error", "timeout", "skipped")
CELLS = [f"deepspeed-mlp-W1-K{k}-stage:2" for k in (2, 3, 4, 5)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(CELLS), st.sampled_from(VERDICTS)), min_size=2, max_size=3))
def test_right_is_said_only_where_something_is_right_and_nothing_wrong(releases: list[dict[str, str]]) -> None:
    environments = []
    for number, verdicts in enumerate(releases):
        rows = tuple(row(name, verdict) for name, verdict in verdicts.items())
        run = reading.Run(str(number), str(number), "", complete=True, environment={"packages": release(f"0.18.{number}")}, rows=rows)
        environments.append(reading.Environment(str(number), (run,)))
    judged = {name for verdicts in releases for name, v in verdicts.items() if v in VERDICTS[:3]}
    for one in grid.grids(reading.Results(tuple(environments))):
        for fields in one.fields:
            for column, field in zip(one.columns, fields, strict=True):
                verdicts = releases[int(column.environments[0].name)]
                told = list(verdicts.values())
                assert (field.state == "ok") == ("pass" in told and not {"wrong", "error", "timeout"} & {*told})
                assert (field.state == "wrong") == ("wrong" in told) and field.wrong == told.count("wrong") and field.right == told.count("pass")
                assert (field.state == "") == (not told)
                assert field.missing == len(judged - set(verdicts))
                assert field.judged + field.failed + field.refused + field.silent == len(told)


def test_a_cell_that_was_selected_and_never_reached_is_not_run(tmp_path: Path) -> None:
    results(tmp_path / "r" / "a.jsonl", [row(DROPPED), row(OTHER)], packages=release("0.18.9"))
    results(tmp_path / "r" / "b.jsonl", [row(DROPPED), row(OTHER, "skipped", reason="not run: the session ended first")], packages=release("0.19.8"))
    table = tables(published(tmp_path, tmp_path / "r")["MATRIX.md"])[0]
    assert (table[SHARDED, "0.18.9"], table[SHARDED, "0.19.8"]) == ("ok 1", "-")


# --- what it keeps to itself ----------------------------------------------------------------------------------

SECRETS = ("alice", "builder-17", "corp.example", "10.20.30.40", "48151", "31337", "secretlib", "wallet", "TOKEN", "s3cr3t", "vault", "private-branch")


def private(path: Path) -> Path:
    """A run in a snapshot that says too much, and whose texts do."""
    leak = (
        "OSError: /home/alice/wallet/x.py: cannot reach builder-17.corp.example [10.20.30.40]:29500 (pid 48151); see '/home/alice/my wallet/log', "
        "file:///home/alice/vault/a, C:\\Users\\alice\\wallet\\a.txt, ~alice/vault/b, alice@builder-17, process 31337, fe80:0:0:0:1:2:3:4"
    )
    bad = row(DROPPED, "wrong", KNOWN, reason=leak, stand_ins=[leak], question=leak, link=leak, facts={leak: leak})
    bad["diagnosis"] = {**bad["diagnosis"], "words": leak, "why": leak, "where": [leak]}
    bad["checks"][0]["where"] = leak
    bad |= {"argv": ["--token", "s3cr3t"], "environ": {"TOKEN": "s3cr3t"}, "versions": {**bad["versions"], "secretlib": "1.0", "numpy": "/home/alice/wallet"}}
    results(path, [bad, row(OTHER, "error", reason=leak), row(THIRD, "skipped", reason=leak)])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    head = records[0]
    head |= {"host": "builder-17", "pid": 48151, "name": "/home/alice/wallet/zero"}
    head["environment"] |= {
        "hostname": "builder-17", "cwd": "/home/alice/wallet", "argv": ["pytest", "--token=s3cr3t"], "user": "alice", "environ": {"TOKEN": "s3cr3t"},
        "system": "Linux 6.1.0-corp.example", "processor": "Xeon of builder-17", "machine": "vault", "python": "3.11.7 (private-branch)", "cores": "31337",
        "packages": {"deepspeed": "0.18.9", "torch": "file:///home/alice/vault/torch", "secretlib": "1.0", "numpy": "2.4.6"},
        "truestep": {"version": "0.1.0", "code": "/home/alice/wallet", "commit": "private-branch", "dirty": "wallet", "branch": "private-branch"},
    }  # fmt: skip
    head["options"] = {"patch": False, "quick": True, "k": "wallet", "m": "vault", "cell": ["s3cr3t"], "setup": ["wallet.vault:TOKEN"], "argv": ["s3cr3t"],
                       "expect_known": "s3cr3t"}  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + "{torn")
    return path


def test_nothing_private_is_published(tmp_path: Path) -> None:
    made = published(tmp_path, private(tmp_path / "alice" / "r.jsonl"))
    for name, text in made.items():
        for secret in (*SECRETS, str(tmp_path), "/home"):
            assert secret not in text, (name, secret)
    document = json.loads(made["matrix.json"])
    (one,) = document["environments"]
    assert one["packages"] == {"deepspeed": "0.18.9", "numpy": "2.4.6"}
    assert one["environment"] == {
        "packages": one["packages"], "system": "Linux 6.1.0", "truestep": {"version": "0.1.0", "code": "", "commit": "", "dirty": None},
    }  # fmt: skip
    assert one["options"] == {"patch": False, "quick": True, "selected": True, "setup": True}
    assert "a selection of cells, setup functions of its own" in made["MATRIX.md"]
    assert document["problems"] == ["r.jsonl:6: not a result (the run that wrote it was cut off); the line is left out"]


def test_what_may_be_told_is_told(tmp_path: Path) -> None:
    (one,) = json.loads(published(tmp_path, results(tmp_path / "a.jsonl", [row()]))["matrix.json"])["environments"]
    assert one["environment"] == {
        "packages": dict(release("0.18.9")), "python": "3.11.7", "machine": "x86_64", "system": "Linux 6.1", "cores": 2,
        "truestep": {"version": "0.1.0", "code": "0123456789ab", "commit": "", "dirty": None},
    }  # fmt: skip
    assert one["options"] == {"patch": False, "selected": False, "setup": False}


names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(names, min_size=2, max_size=5), st.sampled_from(["{}", "at {}", "'{}'", "({})", "x={}, y", "file://{}", "cannot open {}: no", "[{}]"]))
def test_of_an_absolute_path_the_last_part_stays(parts: list[str], around: str) -> None:
    path = "/" + "/".join(parts)
    left = without(around.format(path))
    assert path not in left and left.count("/") == 1 and left.endswith(around.format(f"…/{parts[-1]}").removeprefix("file://"))
    assert without(left) == left


@pytest.mark.parametrize(
    "text",
    ["see https://github.com/deepspeedai/DeepSpeed/pull/7967", "weights (1, 0)/4, 1/2/3 of it", "deepspeed 0.18.9, torch 2.13.0+cpu, at 04:43:31",
     "everything x 1/4 (1 / (K, the micro-batches of a step))", "W2/K4 and torch/deepspeed", "modeling_utils.py:3901 in save_pretrained"],
)  # fmt: skip
def test_what_is_no_path_and_no_address_stays(text: str) -> None:
    assert without(text, ("vm",)) == text


HOSTILE = "a|b `c` <script>alert(1)</script> [x](javascript:y) ![i](https://h/p) *d* _e_ </details> & \x1b[31m\x00 @someone ]]> 'q'"


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    bad = row(DROPPED, "wrong", reason=HOSTILE, question=HOSTILE)
    bad["diagnosis"] = {**bad["diagnosis"], "words": HOSTILE, "kinds": [HOSTILE]}
    path = results(tmp_path / "a.jsonl", [bad, row(OTHER, "skipped", reason=HOSTILE), row(THIRD)])
    path.write_text(path.read_text().replace('"name": "a"', f'"name": {json.dumps(HOSTILE)}'))
    made = published(tmp_path, path)
    assert main(["publish", str(path), "-o", str(tmp_path / "t"), "--title", HOSTILE]) == 0
    for page in (made["MATRIX.md"], (tmp_path / "t" / "MATRIX.md").read_text()):
        tree = rendered(page)
        assert not list(tree.iter("script")) and [e.attrib["src"] for e in tree.iter("img")] == ["matrix.svg"]
        assert not [e for e in tree.iter("a") if e.attrib.get("href", "").startswith("javascript")]
        assert len(list(tree.iter("details"))) == 1 and not set(page) & {"\x1b", "\x00"}
    ET.fromstring(made["matrix.svg"])


# --- the same bytes -------------------------------------------------------------------------------------------


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    three(tmp_path / "one" / "r")
    results(tmp_path / "one" / "r" / "d.jsonl", [row(DROPPED)], packages=release("0.18.9.0", numpy="2.0"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one" / "r" / "c.jsonl").touch()
    for seed, folder, where in (("1", "one", str(tmp_path / "one" / "r")), ("2", "two", "r")):
        done = subprocess.run([sys.executable, "-m", "truestep.cli", "publish", where, "-o", "out"], cwd=tmp_path / folder, capture_output=True, text=True,
                              env={**os.environ, "PYTHONHASHSEED": seed}, timeout=120, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / "one" / "out" / name).read_bytes() == (tmp_path / "two" / "out" / name).read_bytes(), name
    head = json.loads((tmp_path / "one" / "r" / "a.jsonl").read_text().splitlines()[0])
    assert json.loads((tmp_path / "one" / "out" / "matrix.json").read_text())["generated"][:10] == head["started"][:10]


def test_the_date_is_that_of_the_runs(tmp_path: Path) -> None:
    for name, started, finished in (("a", "2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z"), ("b", "2026-01-01T23:00:00Z", "2026-01-01T23:30:00Z")):
        path = results(tmp_path / "r" / f"{name}.jsonl", [row()], packages=release(f"0.18.{len(name)}", numpy=name))
        records = [json.loads(line) for line in path.read_text().splitlines()]
        records[0]["started"], records[-1]["finished"] = started, finished
        path.write_text("".join(json.dumps(one) + "\n" for one in records))
    made = published(tmp_path, tmp_path / "r")
    assert json.loads(made["matrix.json"])["generated"] == "2026-01-02T04:00:00Z"
    assert "They ran 2026-01-01 23:00 to 2026-01-02 04:00 UTC" in made["MATRIX.md"]
    assert "| 2026-01-02 03:04 to 04:00 UTC |" in made["MATRIX.md"]


def test_the_page_can_be_made_of_its_own_document(tmp_path: Path) -> None:
    made = published(tmp_path, three(tmp_path / "r"))
    Draft202012Validator(json.loads((Path(compare_runs.__file__).parent / "schema" / "matrix-1.json").read_text())).validate(json.loads(made["matrix.json"]))
    again = published(tmp_path / "again", tmp_path / "published" / "matrix.json")
    assert tables(again["MATRIX.md"])[0] == tables(made["MATRIX.md"])[0]
    assert [t for t in again["MATRIX.md"].splitlines() if t.startswith("- <a id=")] == [t for t in made["MATRIX.md"].splitlines() if t.startswith("- <a id=")]


def test_nothing_is_written_where_there_is_nothing_to_publish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results(tmp_path / "a.jsonl", [row(OTHER, "skipped")])
    for where in (path, tmp_path / "none.jsonl", tmp_path):
        (tmp_path / "broken.jsonl").write_text("{}") if where == tmp_path else None
        assert main(["publish", str(where), "-o", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert told.startswith("truestep: ") and told.count("\n") == 1, told
    assert not (tmp_path / "out").exists()


# --- the picture ----------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_says_in_letters_what_its_colours_say(tmp_path: Path) -> None:
    text = published(tmp_path, three(tmp_path / "r"))["matrix.svg"]
    tree = ET.fromstring(text)
    squares = {title.text: group for group in tree.iter(f"{SVG}g") if (title := group.find(f"{SVG}title")) is not None}
    letters = {t: ("".join(e.text or "" for e in g.iter(f"{SVG}text")), g.findall(f"{SVG}rect")[0].attrib["class"], len(g.findall(f"{SVG}rect"))) for t, g in squares.items()}
    offloaded, sharded, two = (f"{one}, accumulation" for one in ("ZeRO-2, offload_optimizer", "ZeRO-1", "ZeRO-0"))
    assert letters == {
        f"DeepSpeed 0.9.0, {offloaded}: 2 different by design": ("C", "choice", 1),
        f"DeepSpeed 0.18.9, {offloaded}: 1 wrong, 1 right": ("W 50%", "most", 1),
        f"DeepSpeed 0.19.8, {offloaded}: 1 right, 1 not run": ("ok", "ok", 2),
        f"DeepSpeed 0.9.0, {sharded}: 1 failed without an answer": ("F", "failed", 1),
        f"DeepSpeed 0.18.9, {sharded}: 1 right": ("ok", "ok", 1),
        f"DeepSpeed 0.19.8, {sharded}: 1 not run": ("–", "none", 1),
        f"DeepSpeed 0.9.0, {two}: 1 without an answer": ("?", "silent", 1),
        f"DeepSpeed 0.18.9, {two}: 1 refused": ("R", "refused", 1),
        f"DeepSpeed 0.19.8, {two}: 1 right": ("ok", "ok", 1),
    }
    named = [tree.find(f"{SVG}{tag}") for tag in ("title", "desc")]
    assert tree.attrib["role"] == "img" and tree.attrib["aria-labelledby"] == " ".join(e.attrib["id"] for e in named if e is not None)
    assert "0.18.9: wrong under ZeRO-2, offload_optimizer, accumulation (1 of 2 cells)." in (named[1].text or "" if named[1] is not None else "")
    assert "0.19.8 (unfinished): nothing found wrong." in text and "0.19.8*" in text
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|<script|href", text)


def test_a_few_cells_of_many_are_not_green(tmp_path: Path) -> None:
    cells = [f"deepspeed-mlp-W1-K{k}-stage:2" for k in (2, 3, 4, 5, 6)]
    results(tmp_path / "r" / "a.jsonl", [row(cell) for cell in cells], packages=release("0.18.9"))
    results(tmp_path / "r" / "b.jsonl", [row(cell) for cell in cells[:2]], packages=release("0.19.6"), complete=None)
    results(tmp_path / "r" / "c.jsonl", [row(cell) for cell in cells[:3]], packages=release("0.19.8"), complete=None)
    text = published(tmp_path, tmp_path / "r")["matrix.svg"]
    for version, said in (("0.18.9", 't-ok">ok<'), ("0.19.6", 't-few">ok 40%<'), ("0.19.8", 't-ok">ok<')):
        (square,) = [line for line in text.splitlines() if f"<title>DeepSpeed {version}, ZeRO-2, accumulation: " in line]
        assert said in square and ("part" in square) == (version != "0.18.9")


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_every_letter_can_be_read_by_day_and_by_night(tmp_path: Path, dark: bool) -> None:
    style = published(tmp_path, three(tmp_path / "r"))["matrix.svg"].split("<style>")[1].split("</style>")[0]
    light, night = style.split("@media (prefers-color-scheme:dark){")
    fills: Mapping[str, str] = dict(re.findall(r"(\.?[\w-]+)\{[^{}]*?fill:(#\w{6})", light + (night if dark else "")))
    pairs = [(f".t-{kind}", ".ground" if kind == "none" else f".{kind}") for kind in ("ok", "few", "some", "most", "choice", "failed", "refused", "silent", "none")]
    for letter, ground in [*pairs, ("text", ".ground"), (".muted", ".ground")]:
        bright, dim = sorted((luminance(fills[letter]), luminance(fills[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (letter, ground)


# --- the packed matrix ----------------------------------------------------------------------------------------


def test_a_part_of_the_environments_keeps_words_and_weights_of_every_finding(tmp_path: Path) -> None:
    """The cell that stands for a finding may be in another environment than the ones that are kept."""
    longer = "deepspeed-mlp-W1-K8-stage:2-offload_optimizer:cpu-clipping:tight"
    other = row(longer, "wrong", KNOWN)
    other["diagnosis"] = {**other["diagnosis"], "words": "micro-batches 2 to 7 of 8 have weight 0", "weights": [[1.0, *[1e-9] * 6, float("nan")]]}
    results(tmp_path / "r" / "a.jsonl", [row(DROPPED, "wrong", KNOWN), row(OTHER)])
    results(tmp_path / "r" / "b.jsonl", [other, row(OTHER, "wrong", kinds=("scaled",))], packages=release("0.18.5"))
    results(tmp_path / "r" / "c.jsonl", [row(longer, "wrong", KNOWN), row(DROPPED)], packages=release("0.18.3"))
    whole = pack.unpack(json.loads(json.dumps(pack.pack(reading.read([tmp_path / "r"])), allow_nan=False)))
    words: dict[str, Any] = {}
    for one in whole.environments:
        alone = pack.pack(reading.Results((one,)))
        words[one.name] = {f["fingerprint"]: (f["diagnosis"]["words"], f["diagnosis"]["weights"]) for f in alone["findings"]}
        assert all(not f["elsewhere"] for f in alone["findings"])
    said = ("micro-batches 2 and 3 of 4 have weight 0", [[1.0, 0.0, 0.0, 1.0]])
    assert words == {
        "a": {KNOWN: said},
        "b": {KNOWN: ("micro-batches 2 to 7 of 8 have weight 0", [[1.0, *[1e-9] * 6, None]]), "unknown:scaled": said},
        "c": {KNOWN: said},
    }
    (finding,) = [f for f in pack.pack(whole)["findings"] if f["advisory"]]
    assert [one["environment"] for one in finding["elsewhere"]] == [1, 2] and finding["elsewhere"][1]["diagnosis"] is None
    assert pack.pack(whole, generated="x") == pack.pack(pack.unpack(pack.pack(whole)), generated="x")


def test_a_matrix_of_before_is_still_read(tmp_path: Path) -> None:
    document = pack.pack(reading.read([results(tmp_path / "a.jsonl", [row(DROPPED, "wrong", KNOWN)])]))
    for one in document["findings"]:
        del one["elsewhere"]
    assert [r["diagnosis"]["words"] for _, r in pack.unpack(document)] == ["micro-batches 2 and 3 of 4 have weight 0"]
    assert publish.files(pack.unpack(document))["MATRIX.md"].startswith("# ")
