"""docs/quickstart.md and docs/verdicts.md: their commands are run, and print what the pages show. About 45 s of computing.

The findings shown are those of a release that has them (transformers-47688): with another one their test is skipped, with the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pages
import pytest
from truestep.reports.verdict import VERDICTS

#: commands of a page that no test runs, and why not
NOT_RUN = {
    "python3 -m venv .venv && . .venv/bin/activate": "the tests run in an environment that is there",
    "pip install torch": "needs a network",
    "pip install transformers accelerate": "needs a network",
    "pip install ./truestep": "tests/test_wheel.py installs a wheel of it and runs it from elsewhere",
}
RED = {  # what exits with 1, and nothing else may
    "truestep run transformers-llama.class-W1-K4",
    "pytest --pyargs truestep.probes.test_trainer --cell transformers-llama.class-W1-K4 -q --truestep-results verdicts.jsonl",
    "truestep report verdicts.jsonl --html report.html --junit junit.xml --sarif truestep.sarif",
}
NOT_CACHED = {"PYTEST_ADDOPTS": "-p no:cacheprovider"}


def must_print_what_is_shown(ran: list[pages.Ran]) -> None:
    for one in ran:
        assert not one.missing, f"$ {one.line}\n{one.printed[-3000:]}\nthe page shows, and it was not printed:\n{one.missing}"
        assert one.code == (one.line in RED), f"$ {one.line}\nexit code {one.code}\n{one.printed[-3000:]}"


def test_the_quick_start(needs_the_finding: None, tmp_path: Path) -> None:
    text = pages.text_of("docs/quickstart.md")
    ran = pages.play(text, tmp_path, pages.shell(tmp_path, **NOT_CACHED), but=frozenset(NOT_RUN))
    assert {one.line for one in ran} | set(NOT_RUN) == {line for line, _ in pages.sessions(text)}
    must_print_what_is_shown(ran)
    assert {"report.html", "junit.xml", "truestep.sarif", "accepted.json"} <= {path.name for path in tmp_path.iterdir()}


def test_the_verdicts_that_are_explained(needs_the_finding: None, tmp_path: Path) -> None:
    must_print_what_is_shown(pages.play(pages.text_of("docs/verdicts.md"), tmp_path, pages.shell(tmp_path)))


def test_every_verdict_and_every_line_that_is_shown_is_explained() -> None:
    text = pages.text_of("docs/verdicts.md")
    rows = re.findall(r"^\| `([^`]+)`", text, re.M)
    assert set(VERDICTS) <= set(rows)
    red, green = (output for _, output in pages.sessions(text))
    said = [line.strip() for line in (*red, *green) if line.strip() != "..." and not line.strip().startswith(("https://", "PASS:"))]
    explained = [row.rstrip("…") for row in rows]
    assert [line for line in said if not any(row in line for row in explained)] == []


@pytest.mark.parametrize("page", ["quickstart", "verdicts", "extending", "tolerance", "diagnosis"])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    folder = pages.ROOT / "docs"
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (folder / f"{page}.md").read_text(encoding="utf-8"))
    assert [link for link in links if not (folder / link).exists()] == []


# --- the tests of the pages can fail -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        (("a", "...", "b 1.2e-07"), "a\nx\nb 3.4e-06\n", ""),
        (("a", "b"), "b\na\n", "b"),
        (("off by 3",), "off by 4\n", "off by 3"),
        (("off by 3",), "it is off by 3 times\n", "off by 3"),
        (("... off by 3 ...",), "it is off by 3 times\n", ""),
        (("1.2e-07",), "0.5\n", "1.2e-07"),
    ],
)
def test_what_is_not_printed_is_missed(shown: tuple[str, ...], printed: str, missing: str) -> None:
    assert pages.Ran("", shown, printed, 0).missing == missing


def test_a_page_is_done_from_top_to_bottom(tmp_path: Path) -> None:
    text = (
        '```toml title="a/b.toml"\nx = 1\ny = 1\n```\n```console\n$ cat a/b.toml\nx = 1\n$ exit 3\n```\n'
        '```diff title="a/b.toml"\n-x = 1\n+x = 2\n+z = 3\n```\n```console\n$ cat a/b.toml\n$ false\n```\n```\n$ not a session\n```\n'
    )
    ran = pages.play(text, tmp_path, pages.shell(tmp_path), but=frozenset({"false"}))
    assert [(one.line, one.printed, one.code) for one in ran] == [
        ("cat a/b.toml", "x = 1\ny = 1\n", 0),
        ("exit 3", "", 3),
        ("cat a/b.toml", "x = 2\nz = 3\ny = 1\n", 0),
    ]
    with pytest.raises(AssertionError, match="does not have once"):
        pages.play('```diff title="a/b.toml"\n-x = 1\n+x = 2\n```\n', tmp_path, pages.shell(tmp_path))
