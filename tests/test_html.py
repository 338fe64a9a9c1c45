"""The HTML report, in a real browser (Chromium through selenium; skipped where there is none). About 25 s on one core."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truestep.fixtures.cell import Cell, parse
from truestep.probes.pairs import random_cells
from truestep.reports import html, html_parts, pack
from truestep.reports.results import Environment, Results, ResultsError, Run
from truestep.reports.verdict import Check, Diagnosis, Verdict

OFFLOAD = "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu"
PLAIN = "deepspeed-mlp-W1-K4-stage:1"
NEW = "deepspeed-mlp-W2-K4-stage:0"
WEIGHTS = ((1.0, 0.0, 2.38), (-0.5, 1.0, 1.0))
HOSTILE = (
    "<script>window.pwned=1</script>", "</script><img src=x onerror=window.pwned=1>", '" onclick="window.pwned=1" x="', "javascript:window.pwned=1",
    "a\u2028b\u2029c", "<!--<script>", "\u202egnp.exe", "x" * 10_000, "&lt;b&gt;", "' autofocus onfocus=window.pwned=1 '", "${style}", "\ud800",
)  # fmt: skip


# ---- documents ----


def judged(cell: Cell, verdict: str, **more: Any) -> dict[str, Any]:
    figure = 0.59 if verdict == "wrong" else 4e-7
    checks = () if verdict in ("skipped", "incompatible") else (Check("gradient", 0, figure, 1.2e-6, 4e-7, "w"), Check("loss", 0, 0.0, 0.0, 0.0))
    row = Verdict(cell.to_json(), cell.id, verdict, checks=checks, reason="" if verdict == "pass" else f"{verdict} for a reason", **more).to_json()
    return {"family": "offload", "question": f"Does {dict(cell.knobs).get('stage', 'none')} change the step?", **row}


def environment(name: str, version: str, rows: list[dict[str, Any]], complete: bool = True) -> Environment:
    packages = {"deepspeed": version, "torch": "2.13.0", "python": "3.11.7"}
    own = {"packages": packages, "truestep": {"version": "0.1.0", "commit": "0123456789abcdef", "dirty": False}}
    return Environment(name, (Run(name, name, name, complete=complete, environment=own, rows=tuple(rows)),))


def diagnosis() -> Diagnosis:
    tokens = ((1.0, None, 0.0), (2.0, -0.5, 0.25))
    words = "micro-batches 2 and 3 of 4 have weight 0; and more"
    return Diagnosis(("dropped",), words, WEIGHTS, samples=(1.0, 0.5), tokens=tokens, sure="certain", why="weights known to 1e-07")


def sample() -> dict[str, Any]:
    """Two releases: one cell is wrong in the older one (known), one in both (new), one is right, one was not run in the newer."""
    offload, plain, new = (parse(name) for name in (OFFLOAD, PLAIN, NEW))
    more = parse("deepspeed-mlp-W1-K2-stage:1")
    old = [judged(offload, "wrong", diagnosis=diagnosis(), advisory="deepspeed-7967"), judged(plain, "pass"), judged(more, "pass")]
    scaled = Diagnosis(("scaled",), "everything x 4", ((4.0, 4.0),), sure="likely")
    old.append(judged(new, "wrong", diagnosis=scaled))
    fresh = [judged(offload, "pass"), judged(plain, "incompatible"), judged(new, "wrong", diagnosis=scaled)]
    return pack.pack(Results((environment("older", "0.18.9", old), environment("newer", "0.19.8", fresh, complete=False)), ("x.jsonl:3: not a result",)))


def poisoned(data: Any, path: str = "") -> Any:
    """Every text of people and packages becomes hostile; names that the schema itself gives stay."""
    if isinstance(data, Mapping):
        return {key: value if key in ("schema", "verdicts", "columns", "facets", "verdict", "truestep") else poisoned(value, f"{path}/{key}") for key, value in data.items()}
    if isinstance(data, list):
        return [poisoned(value, f"{path}/{i}") for i, value in enumerate(data)]
    if not isinstance(data, str) or not data:
        return data
    if path.endswith("/advisory") or re.fullmatch("/advisories/[0-9]+/id", path):
        return data + HOSTILE[0]  # the same in both places, so that they still meet
    return data + HOSTILE[sum(map(ord, path)) % len(HOSTILE)] if "/links" not in path else HOSTILE[3]


def many() -> dict[str, Any]:
    cells = random_cells("deepspeed", 1700, 0)
    every = ("pass", "pass", "pass", "wrong", "incompatible", "skipped")
    environments = []
    known = [{verdict: judged(cell, verdict, diagnosis=diagnosis() if i % 50 == 0 else None) for verdict in {*every}} for i, cell in enumerate(cells)]
    for number in range(30):
        rows = [rows_of[every[(i * 7 + number * (i % 3)) % len(every)]] for i, rows_of in enumerate(known)]
        environments.append(environment(f"zero-0.{number}.0", f"0.{number}.0", rows))
    return pack.pack(Results(tuple(environments)))


# ---- without a browser ----


def embedded(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_it_is_one_file_that_allows_nothing_but_its_own_two_blocks() -> None:
    page = html.render(sample())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    for tag in ("style", "script"):
        (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'" in policy
    assert not re.findall(r"\b(?:src|srcset|action|onclick)=|@import|url\(", page.split('<script type="application/json"')[0].replace("script-src", ""))
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "document.write" not in page


def test_the_document_comes_back_from_the_page_and_cannot_leave_its_element() -> None:
    document = poisoned(sample())
    document["findings"][0]["worst"] = float("nan")
    page = html.render(document)
    back = embedded(page)["document"]
    document["findings"][0]["worst"] = None
    assert back == json.loads(json.dumps(document))
    inside = page.split('id="data">')[1].split("</script>")[0]
    assert not set(inside) & set("<>&\u2028\u2029") and inside.isascii()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_text_is_never_markup_and_never_hidden(anything: str) -> None:
    shown = html_parts.text(anything)
    assert not set(shown) & set("<>\"'\u202e\u2028\u200b\x00")
    shown.encode("utf-8")


@pytest.mark.parametrize("link", ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "http://a.b/", "//a.b/", "https:", " https://\u202ea.b", "https://[", ""])
def test_only_https_is_a_link(link: str) -> None:
    assert not html_parts.https(link)
    assert html_parts.https("https://github.com/deepspeedai/DeepSpeed/pull/7967")


def test_a_damaged_document_is_refused_in_one_line() -> None:
    for key in ("texts", "environments", "findings", "cells", "facets"):
        document = {k: v for k, v in sample().items() if k != key}
        with pytest.raises(ResultsError, match="damaged") as told:
            html.render(document)
        assert "\n" not in str(told.value)


def test_a_command_is_one_word_for_the_shell() -> None:
    bad = judged(parse(PLAIN), "wrong") | {"id": "x; rm -rf ~"}
    assert pack.pack(Results((environment("a", "0.19.8", [bad]),)))["findings"][0]["command"] == "truestep run 'x; rm -rf ~'"
    assert f"truestep run {OFFLOAD}" in {f["command"] for f in sample()["findings"]}


def test_the_sentence_counts_findings_and_says_what_is_missing() -> None:
    document = sample()
    assert html_parts.sentence(document) == "2 findings in 2 of 2 environments."
    page = html.render(document)
    assert "Not complete:</b> newer" in page and "0123456789ab" in page and "1 line of the results could not be read" in page
    assert html_parts.sentence(pack.pack(Results())) == "Nothing was judged."
    right = pack.pack(Results((environment("a", "0.19.8", [judged(parse(PLAIN), "pass")]),)))
    assert html_parts.sentence(right) == "No findings in 1 environment."
    silent = pack.pack(Results((environment("a", "0.19.8", [judged(parse(PLAIN), "skipped")]),)))
    assert html_parts.sentence(silent) == "No cell gave an answer."


# ---- in a browser ----


class Browser:
    """Chromium, and a few short words for what the tests do with it."""

    def __init__(self, folder: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                     "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.folder, self.pages = folder, 0

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def look(self, width: int = 1440, height: int = 900, **media: str) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        kind = media.pop("media", "")
        self.cdp("Emulation.setEmulatedMedia", media=kind, features=[{"name": k.replace("_", "-"), "value": v} for k, v in media.items()])

    def write(self, document: Mapping[str, Any]) -> Path:
        self.pages += 1
        path = self.folder / f"{self.pages}.html"
        path.write_text(html.render(document), encoding="utf-8")
        return path

    def open(self, document: Mapping[str, Any], fragment: str = "") -> None:
        path = self.write(document)
        self.logs()
        self.driver.get(path.as_uri() + fragment)
        self.wait("document.querySelector('#distribution *')")

    def logs(self) -> tuple[list[Any], list[str]]:
        """Console messages and addresses asked for since the last look."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return self.driver.get_log("browser"), asked

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script if "return" in script else f"return {script}", *arguments)

    def wait(self, condition: str, seconds: float = 8) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.03).until(lambda _: self.js(condition))

    def keys(self, *names: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver, duration=0)
        for name in names:
            chain.send_keys(getattr(Keys, name, name))
        chain.perform()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing or find_spec("selenium") is None:
        pytest.skip(f"no browser here: {', '.join(missing) or 'selenium'} is not installed (bash .ci/browser)")
    one = Browser(tmp_path_factory.mktemp("pages"))
    yield one
    one.driver.quit()


@pytest.fixture
def browser(shared: Browser) -> Browser:
    shared.look()
    return shared


def test_it_asks_for_nothing_and_has_nothing_to_complain(browser: Browser) -> None:
    browser.open(sample())
    browser.js("for (const box of document.querySelectorAll('details')) box.open = true; return 1")
    browser.wait("document.querySelectorAll('.card .inside').length === 2")
    console, asked = browser.logs()
    assert console == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [] and len([u for u in asked if u.startswith("file:")]) == 1
    assert [u for u in browser.js("performance.getEntriesByType('resource').map((e) => e.name)") if not u.startswith("data:")] == []
    # the policy is in force: what it forbids fails
    refused = browser.driver.execute_async_script(
        "const done = arguments[0]; addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective)); fetch('https://example.org/').catch(() => {})"
    )
    assert refused == "connect-src"


def test_hostile_texts_stay_texts(browser: Browser) -> None:
    browser.open(poisoned(sample()))
    browser.js("Grid.all(true); for (const box of document.querySelectorAll('details')) box.open = true; return 1")
    browser.wait("document.querySelectorAll('.card .inside').length === 2")
    for field in range(browser.js("document.querySelectorAll('.field:not(:has(.v-none))').length")):
        browser.js("document.querySelectorAll('.field:not(:has(.v-none))')[arguments[0]].click()", field)
        assert browser.js("document.getElementById('details').open")
        browser.js("document.getElementById('details').close()")
    assert browser.js("window.pwned === undefined && document.scripts.length === 2 && document.images.length === 0")
    attributes = browser.js("return [...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames().filter((n) => n.startsWith('on')))")
    assert attributes == []
    links = browser.js("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))")
    assert links and all(link.startswith(("#", "https://")) for link in links)
    assert HOSTILE[3] in browser.js("document.querySelector('.upstream').innerText")  # shown, as text
    text = browser.js("document.body.innerText")
    assert "<script>window.pwned=1</script>" in text and "‹U+202E›" in text and "\u202e" not in text
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.logs()[0] == []


def test_50_000_verdicts_open_in_under_two_seconds(browser: Browser) -> None:
    document = many()
    assert sum(len(e["verdicts"]["cell"]) for e in document["environments"]) >= 50_000
    browser.open(document)
    assert (browser.folder / f"{browser.pages}.html").stat().st_size < 10e6
    ready = browser.js("performance.getEntriesByName('truestep-grid')[0].startTime")
    assert ready < 2000, f"the first grid was drawn after {ready:.0f} ms"
    assert browser.js("document.querySelectorAll('.field').length") < 3000  # of all rows only those in sight
    browser.js("Grid.all(true)")
    rows = browser.js("Grid.rows.length")
    browser.js("Grid.go(Grid.rows.length - 1, 30)")
    assert browser.js("document.activeElement.closest('[aria-rowindex]').getAttribute('aria-rowindex')") == str(rows + 1)
    assert browser.js("document.querySelectorAll('.field').length") < 3000
    top = browser.js("document.querySelector('.grid-top').getBoundingClientRect().top - document.querySelector('.grid').getBoundingClientRect().top")
    assert abs(top) < 3  # the head stays


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_only_the_matrix_scrolls_sideways(browser: Browser, width: int) -> None:
    for scheme in ("light", "dark"):
        browser.look(width, prefers_color_scheme=scheme)
        browser.open(sample())
        browser.js("Grid.all(true); for (const box of document.querySelectorAll('details')) box.open = true; return 1")
        browser.wait("document.querySelectorAll('.card .inside').length === 2")
        assert browser.js("document.documentElement.scrollWidth") <= width
        small = browser.js("[...document.querySelectorAll('button, select, input[type=search], a.tile')].filter((e) => e.checkVisibility() && e.offsetHeight < 18).length")
        assert small == 0


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility() && e.innerText?.trim()).map((e) => {
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  return [e.className + ': ' + e.innerText.slice(0, 20), (a + 0.05) / (b + 0.05)];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_and_no_colour_stands_alone(browser: Browser, scheme: str) -> None:
    browser.look(prefers_color_scheme=scheme)
    browser.open(sample())
    browser.js("for (const box of document.querySelectorAll('details')) box.open = true; return 1")
    browser.wait("document.querySelectorAll('.card .inside').length === 2")
    found = browser.driver.execute_script(CONTRAST, ".chip, .field > span, .muted, .key, .lede, .intro, a, .tag, .status, .seen, dt, button:not([disabled]), #status, .column *")
    assert len(found) > 60
    assert [(name, round(ratio, 2)) for name, ratio in found if ratio < 4.5] == []
    assert browser.js("[...document.querySelectorAll('.field > span, .chip')].every((e) => e.innerText.trim() !== '' || !e.checkVisibility())")
    # what was not run looks like nothing that was
    styles = browser.js("return ['v-none', 'v-pass', 'v-wrong'].map((c) => { const s = getComputedStyle(document.querySelector(`.${c}`)); return s.backgroundColor + s.backgroundImage; })")
    assert len(set(styles)) == 3


def test_the_button_changes_the_colours_and_the_page_remembers(browser: Browser) -> None:
    browser.look(prefers_color_scheme="light")
    browser.open(sample())
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(3):
        browser.js("document.getElementById('theme').click()")
        seen.append((browser.js("document.getElementById('theme').getAttribute('aria-label')"), browser.js(paper)))
    assert [label for label, _ in seen] == ["Colours: light", "Colours: dark", "Colours: as the system has them"]
    assert seen[0][1] == seen[2][1] != seen[1][1]


def test_the_keyboard_reaches_everything(browser: Browser) -> None:
    browser.open(sample())
    where = "document.activeElement.closest('[aria-rowindex]')?.getAttribute('aria-rowindex') + '/' + document.activeElement.getAttribute('aria-colindex')"
    reached = []
    for _ in range(60):
        browser.keys("TAB")
        reached.append(browser.js("document.activeElement.id || document.activeElement.name || document.activeElement.className || document.activeElement.tagName"))
        outline = browser.js("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or browser.js("document.activeElement === document.body"), reached[-1]
        if reached[-1] == "row-head":
            break
    assert {"theme", "framework", "verdict", "version", "text", "differs", "found", "open-all", "row-head"} <= set(reached)
    assert browser.js(where) == "2/1"
    expanded = "document.activeElement.parentElement.getAttribute('aria-expanded')"
    browser.keys("ARROW_DOWN", "ARROW_LEFT")  # an open row closes, a closed one opens, before the focus moves
    assert browser.js(where) == "3/1" and browser.js(expanded) == "false"
    browser.keys("ARROW_RIGHT")
    assert browser.js(where) == "3/1" and browser.js(expanded) == "true"
    browser.keys("ARROW_RIGHT")
    assert browser.js(where) == "3/2"
    browser.keys("END")
    assert browser.js(where) == "3/3"
    browser.keys("ENTER")
    assert browser.js("document.getElementById('details').open")
    assert browser.js("document.getElementById('details').contains(document.activeElement)")
    browser.keys("ESCAPE")
    assert not browser.js("document.getElementById('details').open") and browser.js(where) == "3/3"
    browser.keys("HOME", "ARROW_LEFT")
    assert browser.js(expanded) == "false"
    browser.keys("ARROW_LEFT")
    assert browser.js(where) == "2/1"
    for _ in range(20):
        browser.keys("TAB")
        if browser.js("document.activeElement.closest('.card')"):
            break
    browser.keys("ENTER")
    assert browser.js("document.activeElement.parentElement.open")


def test_a_screen_reader_finds_its_way(browser: Browser) -> None:
    browser.open(sample())
    browser.js("for (const box of document.querySelectorAll('.card')) box.open = true; return 1")
    browser.wait("document.querySelectorAll('.card .inside').length === 2")
    assert browser.js("['header', 'nav', 'main', 'footer', 'h1'].map((n) => document.querySelectorAll(n).length)") == [1, 1, 1, 1, 1]
    levels = browser.js("[...document.querySelectorAll('h1, h2, h3, h4')].filter((e) => e.checkVisibility()).map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert len(names["treegrid"]) == 1 and {"rowheader", "gridcell", "columnheader"} <= set(names)
    assert "1 wrong" in names["gridcell"] and "not run" not in names["rowheader"]
    assert any("0.18.9" in name and "older" in name for name in names["columnheader"])
    for role in ("button", "link", "combobox", "searchbox", "checkbox", "image", "region"):
        assert all(names.get(role, ["?"])), (role, names.get(role))
    assert browser.js("document.querySelectorAll('svg.figure').length") == browser.js("[...document.querySelectorAll('svg.figure')].filter((s) => s.parentElement.parentElement.querySelector('table')).length") >= 5
    assert browser.js("document.getElementById('status').getAttribute('aria-live')") == "polite"


def test_filters_live_in_the_address_and_are_told(browser: Browser) -> None:
    browser.open(sample())
    said = "document.getElementById('status').textContent"
    shown = "Grid.rows.at(-1).cells.length + '/' + Grid.columns.length"
    assert browser.js(said).startswith("All 4 cells in 2 environments: 7 verdicts, 2 findings")

    def choose(name: str, value: Any) -> None:
        browser.js(
            "const c = document.getElementById('filters').elements[arguments[0]]; if (c.type === 'checkbox') c.checked = arguments[1]; else c.value = arguments[1];"
            "c.dispatchEvent(new Event('input', {bubbles: true})); return 1", name, value,
        )  # fmt: skip

    for name, value, fragment, told in (
        ("version", "deepspeed 0.19.8", "version=deepspeed+0.19.8", "3 of 4 cells in 1 environment"),
        ("verdict", "incompatible", "verdict=incompatible", "1 of 4 cells in 2 environments"),
        ("text", "w2-k4", "text=w2-k4", "1 of 4 cells in 2 environments: 2 verdicts, 1 finding"),
        ("differs", True, "differs=1", "2 of 4 cells in 2 environments"),
        ("found", True, "found=1", "2 of 4 cells in 2 environments: 4 verdicts, 2 findings"),
        ("framework", "deepspeed", "framework=deepspeed", "All 4 cells"),
    ):
        choose(name, value)
        browser.wait(f"location.hash === '#{fragment}'")
        assert browser.js(said).startswith(told), (name, browser.js(said))
        address = browser.driver.current_url
        browser.js("document.getElementById('reset').click()")
        assert browser.js("location.hash") == "" and browser.js(said).startswith("All 4 cells")
        before = browser.js(shown)
        browser.driver.get("about:blank")
        browser.driver.get(address)  # as somebody else opens it
        assert browser.js(said).startswith(told)
        browser.js("document.getElementById('reset').click()")
        assert browser.js(shown) == before
    choose("text", "k4")
    browser.wait("location.hash === '#text=k4'")
    browser.js("document.querySelector('nav a[href=\"#findings\"]').click()")  # going to a section keeps them
    assert browser.js("location.hash") == "#text=k4" and browser.js("document.activeElement.id") == "findings"
    choose("text", "no such cell")
    browser.wait("document.querySelector('.grid .empty')")
    assert browser.js(said).startswith("0 of 4 cells")


def test_a_card_says_it_all(browser: Browser) -> None:
    browser.open(sample())
    order = [f["advisory"] for f in sample()["findings"]]
    number = order.index("deepspeed-7967")
    assert browser.js("document.querySelector('.card').id") == f"finding-{order.index('')}"  # the one that the newest release has too comes first
    browser.js(f"showCard({number})")
    card = browser.js(f"document.getElementById('finding-{number}').innerText")
    for words in (
        "Micro-batches 2 and 3 of 4 have weight 0", "Known bug deepspeed-7967", "https://github.com/deepspeedai/DeepSpeed/pull/7967",
        "from 0.15.2, fixed in 0.19.0", "Upgrade to deepspeed 0.19.0", "truestep.patch()", "Certain: weights known to 1e-07", f"truestep run {OFFLOAD}", "0.18.9", "fixed here", "1 wrong", "1 right",
    ):  # fmt: skip
        assert words in card, words
    status = browser.js(f"document.querySelector('#finding-{number} .status').innerText")
    assert "ZeRO-2 with optimizer offload drops every micro-batch" in status and "fixed in 0.19.0" in status
    weights = browser.js(f"[...document.querySelectorAll('#finding-{number} svg')].map((s) => s.getAttribute('aria-label'))")
    assert "rank 0: 1, 0, 2.38; rank 1: -0.5, 1, 1" in weights[0]
    heights = browser.js(f"[...document.querySelectorAll('#finding-{number} svg')][0].querySelectorAll('rect').length")
    assert heights == 5  # weight 0 is a line, not a bar
    assert "Not known: new." in browser.js(f"document.getElementById('finding-{order.index('')}').innerText")
    declared = browser.js(f"[...document.querySelectorAll('#finding-{number} .strip li.declared .num')].map((e) => e.textContent)")
    assert "0.18.9" in declared and "0.19.8" not in declared and "0.19.0" not in declared


def test_printed_everything_is_open_and_light(browser: Browser) -> None:
    browser.look(prefers_color_scheme="dark")
    browser.open(sample())
    browser.js("addEventListener('beforeprint', () => { window.opened = document.querySelectorAll('.card[open] .inside').length; }); return 1")
    pdf = base64.b64decode(browser.cdp("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF") and browser.js("window.opened") == 2
    assert browser.js("document.querySelectorAll('.card[open]').length") == 0  # as it was before
    browser.look(media="print", prefers_color_scheme="dark")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js("[...document.querySelectorAll('#grid, #filters, .top')].every((e) => !e.checkVisibility())")
    assert browser.js("document.querySelector('.static-matrix').checkVisibility()")


def test_without_javascript_it_still_says_what_is_wrong(browser: Browser) -> None:
    path = browser.write(sample())
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.cdp("Page.navigate", url=path.as_uri())
        nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    text = " ".join(node.get("name", {}).get("value", "") for node in nodes if not node.get("ignored"))
    for words in ("2 findings in 2 of 2 environments.", "micro-batches 2 and 3 of 4 have weight 0", "deepspeed-7967", f"truestep run {OFFLOAD}", "Verdicts of each environment", "Not known: new."):
        assert words in text, words
    assert "Copy" not in text and "Reset" not in text


def test_less_motion_and_small_documents(browser: Browser) -> None:
    browser.look(prefers_reduced_motion="reduce")
    browser.open(pack.pack(Results()))
    assert browser.js("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert browser.js("document.querySelector('h1').textContent") == "Nothing was judged."
    assert browser.js("document.querySelector('.grid .empty').textContent") == "No cell was judged."
    browser.open(pack.pack(Results((environment("alone", "0.19.8", [judged(parse(PLAIN), "pass")]),))))
    assert browser.js("document.querySelector('h1').textContent") == "No findings in 1 environment."
    assert browser.js("document.querySelector('.field').getAttribute('aria-label')") == "1 pass"
    assert browser.logs()[0] == []
