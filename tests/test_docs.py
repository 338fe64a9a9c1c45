"""README, CONTRIBUTING, docs/ and reports/published/: what they name exists, what exists is named, and the examples print what is shown.

The commands of docs/commands.md drive transformers: about 40 s of computing. Everything else together takes a few seconds.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pages
import pytest

from truestep.cli import main

PAGES = sorted(
    str(path.relative_to(pages.ROOT))
    for pattern in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "reports/published/*.md")
    for path in pages.ROOT.glob(pattern)
)
REFERENCE = "docs/commands.md"
#: commands of docs/commands.md whose exit code is not 0, and the code that the page says they have
CODES = {
    "truestep run transformers-llama.class-W1-K4 --results before.jsonl": 1,
    "truestep run transformers-llama.class-W1-K4x": 2,
    "truestep report before.jsonl --html report.html --junit junit.xml": 1,
}
NOT_OURS = re.compile(r"--(?:ds\.|actor\.|algo\.|train\.|data\.)")  # options of OpenRLHF's command lines


# --- what there is -------------------------------------------------------------------------------------------------------


@cache
def help_of(*command: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        patch.setenv("COLUMNS", "200")
        main([*command, "--help"])
    assert ended.value.code == 0
    return said.getvalue()


@cache
def commands() -> frozenset[str]:
    return frozenset(re.findall(r"^    ([a-z]+)(?:  |$)", help_of().partition("positional arguments:")[2].partition("\noptions:")[0], re.M))


@cache
def options_of(command: str) -> frozenset[str]:
    heads = re.findall(r"^  (-\S.*?)(?:  |$)", help_of(command).partition("\noptions:")[2], re.M)
    return frozenset(option for head in heads for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", head))


@cache
def pytest_options() -> tuple[frozenset[str], frozenset[str]]:
    """(all of pytest, those of truestep)."""
    said = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, timeout=120, check=True, cwd=pages.ROOT).stdout
    group = re.search(r"^does the framework take .*?:\n(?P<options>(?:^ .*\n|^\n)*)", said, re.M)
    assert group is not None

    def options(text: str) -> frozenset[str]:
        heads = re.findall(r"^  (-\S.*?)(?:  |$)", text, re.M)
        return frozenset(option for head in heads for option in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", head))

    return options(said), options(group["options"])


@cache
def tox_environments() -> tuple[re.Pattern[str], frozenset[str]]:
    """(any environment of tox.ini, its labels)."""
    text = pages.text_of("tox.ini")
    names = [re.escape(name).replace(r"\{", "(?:").replace(r"\}", ")").replace(",", "|") for name in re.findall(r"^\[testenv:(.+)\]$", text, re.M)]
    labels = text.partition("\nlabels =\n")[2].partition("\nskip_missing")[0]
    return re.compile("|".join(names)), frozenset(re.findall(r"^    (\w+) =", labels, re.M))


# --- what the pages say --------------------------------------------------------------------------------------------------


def sections(text: str) -> dict[str, str]:
    """Of docs/commands.md: command -> its section."""
    parts = re.split(r"^## truestep (\w+)\n", text, flags=re.M)
    return {name: re.split(r"^## [A-Z][a-z ]+$", body, flags=re.M)[0] for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def documented(section: str) -> set[str]:
    """The options in the first column of its tables."""
    rows = re.findall(r"^\| ((?:`-[^`]*`(?:, )?)+) \|", section, re.M)
    return {option for row in rows for option in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", row)}


def invocations(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command line, its words) wherever a page names a command: in code spans, in code blocks and after ``$``."""
    plain = re.sub(r"^```.*?\n", "\n", text, flags=re.M)
    spans = re.findall(r"`([^`\n]+)`", plain)
    lines = [line for _, body in pages.blocks(text) for line in body.splitlines()]
    lines += [line.strip() for line in re.findall(r"^    (\S.*)$", text, re.M)]
    for line in (*spans, *lines):
        for part in re.split(r"\|\|?|&&|;", re.sub(r"\s#\s.*", "", line)):
            if found := re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*((?:truestep|pytest|python -m pytest|bash \.ci/(?:probes|test)) .+)", part):
                try:
                    yield found[1], shlex.split(found[1])
                except ValueError:
                    yield found[1], found[1].split()


def wrong_options(text: str) -> list[str]:
    """Options that are named with a command that does not have them, and commands that do not exist."""
    wrong = []
    for line, words in invocations(text):
        if words[0] == "truestep" and re.fullmatch(r"[a-z]+", words[1]):
            if words[1] not in commands():
                wrong.append(f"truestep {words[1]}: no such command")
                continue
            known = options_of(words[1])
            rest = [] if words[1] == "exec" else words[2:]
        elif words[0] == "truestep":
            known, rest = frozenset({"--help", "--version"}), words[1:]
        else:
            known, rest = pytest_options()[0], words[1:]
        for word in rest:
            option = re.match(r"\[?(--?[A-Za-z][\w-]*)", word)
            # pytest takes the value of a one-letter option without a space: -n2
            if option and option[1] not in known and not (not word.startswith("--") and words[0] != "truestep" and option[1][:2] in known):
                wrong.append(f"{line}: no such option {option[1]}")
    return wrong


def wrong_environments(text: str) -> list[str]:
    """tox environments and labels that a page names and tox.ini does not have."""
    environment, labels = tox_environments()
    wrong = [f"tox -e {name}" for name in re.findall(r"\btox -e ([\w.,-]*[\w-])", text) if not all(map(environment.fullmatch, name.split(",")))]
    return wrong + [f"tox -m {name}" for name in re.findall(r"\btox -m (\w+)", text) if name not in labels]


def alone(text: str) -> set[str]:
    """Options that stand in a code span by themselves."""
    return {found for found in re.findall(r"`(--[a-z][\w-]*)(?:[ =][^`]*)?`", text) if not NOT_OURS.match(found)}


@cache
@cache
def anchors(path: Path) -> frozenset[str]:
    """The fragments of a page as GitHub makes them of its headings: lower case, no punctuation, dashes for spaces, -1 for the second; and those
    that are set by hand."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8"))
    found: list[str] = []
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            words = "".join(part.content for part in tokens[at + 1].children or () if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.append(slug if slug not in found else f"{slug}-{sum(f == slug or f.startswith(f'{slug}-') for f in found)}")
    explicit = [one for token in tokens for part in token.children or () if part.type == "html_inline" for one in re.findall(r'<a id="([^"]+)"', part.content)]
    return frozenset([*found, *explicit])


def links(text: str) -> Iterator[str]:
    """Where links and images lead that do not leave the repository."""
    from markdown_it import MarkdownIt

    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for token in block.children or ():
            for name in ("href", "src"):
                target = str(token.attrs.get(name, ""))
                if target and not re.match(r"[a-z]+:", target):
                    yield unquote(target)


def broken(page: Path) -> list[str]:
    wrong = []
    for target in links(page.read_text(encoding="utf-8")):
        place, _, fragment = target.partition("#")
        path = page.parent / place if place else page
        if not path.exists() or (fragment and fragment not in anchors(path)):
            wrong.append(target)
    return wrong


# --- the pages against what there is ---------------------------------------------------------------------------------------


def test_every_command_is_documented_and_none_that_does_not_exist() -> None:
    assert len(commands()) > 10
    assert set(sections(pages.text_of(REFERENCE))) == set(commands())


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_option_of_a_command_is_documented(command: str) -> None:
    section = sections(pages.text_of(REFERENCE))[command]
    assert documented(section) == set(options_of(command)) - {"-h", "--help"}
    usage = re.search(rf"^    (truestep {command}\b.*)$", section, re.M)
    assert usage is not None, "no usage line"
    listed = help_of(command).partition("positional arguments:")[2].partition("\noptions:")[0]
    asked = {name.removeprefix("-- ").split()[0] for name in re.findall(r"^  (\S.*?)(?:  |$)", listed, re.M)}
    assert [name for name in asked if name not in usage[1]] == []
    assert re.search(r"^0[:,]|Always 0|0: printed", section, re.M) or command == "exec", "no exit codes"


def test_every_option_of_pytest_is_documented() -> None:
    assert documented(pages.text_of("docs/gate.md")) >= pytest_options()[1]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str) -> None:
    text = pages.text_of(page)
    assert wrong_options(text) == []
    assert wrong_environments(text) == []
    if not page.startswith("reports/"):
        ours = frozenset().union(*map(options_of, commands()), pytest_options()[0])
        assert alone(text) - ours - {"--help", "--version"} == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page: str) -> None:
    assert broken(pages.ROOT / page) == []


def test_environment_variables_are_documented() -> None:
    named = re.compile(r"\bTRUESTEP_[A-Z]+\b")
    sources = [path for room in ("src", "fixtures", "patches", "probes", "reports", ".ci") for path in (pages.ROOT / room).rglob("*") if path.is_file()]
    read = {
        name
        for path in (*sources, pages.ROOT / "tox.ini", pages.ROOT / "action.yml")
        if "published" not in path.parts and path.suffix in ("", ".py", ".ini", ".yml") and "__pycache__" not in path.parts
        for name in named.findall(path.read_text(encoding="utf-8"))
    }
    assert len(read) >= 5
    assert {name for name in named.findall(pages.text_of(REFERENCE))} == read


def test_the_numbers_of_the_readme() -> None:
    from truestep.fixtures.heads import HEADS
    from truestep.patches import advisories
    from truestep.patches.catalogue import patches

    text, known = pages.text_of("README.md"), advisories()
    told = re.search(r"\| advisories \| (\d+) as data .*; (\d+) of them are cured at run time, by (\d+) patches \|", text)
    assert told is not None
    assert tuple(map(int, told.groups())) == (len(known), sum(bool(one.patch) for one in known), len(patches()))
    assert f"{len(HEADS)} heads of {len({name.partition('.')[0] for name in HEADS})} families" in text


# --- the examples, run -----------------------------------------------------------------------------------------------------


def must_print(ran: list[pages.Ran], codes: dict[str, int]) -> None:
    for one in ran:
        assert not one.missing, f"$ {one.line}\n{one.printed[-3000:]}\nthe page shows, and it was not printed:\n{one.missing}"
        assert one.code == codes.get(one.line, 0), f"$ {one.line}\nexit code {one.code}\n{one.printed[-3000:]}"


def test_the_examples_of_the_reference(needs_the_finding: None, tmp_path: Path) -> None:
    text = pages.text_of(REFERENCE)
    shown = {line for section in sections(text).values() for line, _ in pages.sessions(section)}
    assert [command for command in commands() if not any(re.match(rf"truestep {command}\b", line) for line in shown)] == []
    must_print(pages.play(text, tmp_path, pages.shell(tmp_path)), CODES)


def test_the_step_that_the_readme_checks(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    ran = pages.play(pages.text_of("README.md"), tmp_path, pages.shell(tmp_path))
    assert [one.line for one in ran] == ["python check.py"]
    must_print(ran, {})


# --- the tests of the pages can fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("`truestep judge ID`", "truestep judge: no such command"),
        ("```\n$ truestep run ID --patches\n```\n", "no such option --patches"),
        ("    pytest probes/ --quik\n", "no such option --quik"),
        ("`pytest probes/ -n 2 --patch -m deepspeed | tee log`", ""),
        ("`truestep exec -- torchrun train.py --nproc 2`", ""),
        ("```\nA=1 truestep merge x -o y && truestep report y --out z\n```\n", "no such option --out"),
    ],
)
def test_what_does_not_exist_is_found(text: str, says: str) -> None:
    assert [line for line in wrong_options(text) if says in line] if says else not wrong_options(text)


def test_tox_environments_that_do_not_exist_are_found() -> None:
    named = "`tox -e rlhf-0.10.2-pinned`, `tox -e deepspeed-0.18.9.` `tox -e deepspeed-0.1` `tox -m zero` `tox -m nothing`"
    assert wrong_environments(named) == ["tox -e deepspeed-0.1", "tox -m nothing"]


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One `two`, 3\n## Same\n## Same\n[x](#one-two-3) [x](#same-1) [x](#same-2) [x](b.md) [x](https://example.org) ![x](c.svg)\n\n| a |\n|---|\n| [x](#two) |\n")
    assert broken(page) == ["#same-2", "b.md", "c.svg", "#two"]


def test_options_of_a_table_are_read() -> None:
    assert documented("| option | |\n|---|---|\n| `-n N`, `--count N` | so many `--else` |\n| `--fail-on WHAT` | x |\n") == {"-n", "--count", "--fail-on"}
