"""The baseline file: what it accepts, when it stops to, and what it says of a bad one."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from truestep.reports import baseline
from truestep.reports.baseline import Accepted, Baseline, BaselineError, Entry, Expired

TODAY = date(2026, 11, 22)
SCHEMAS = Path(baseline.__file__).parent / "schema"
CELL, OTHER = "deepspeed-mlp-W1-K4-stage:2-offload_optimizer:cpu", "deepspeed-mlp-W1-K4-stage:1"


def row(name: str = CELL, verdict: str = "wrong", advisory: str = "", kinds: tuple[str, ...] = ("dropped",), **more: Any) -> dict[str, Any]:
    diagnosis = {"kinds": list(kinds), "words": "words"} if verdict == "wrong" else None
    cell = {"framework": "deepspeed", "knobs": {}}
    return {"id": name, "verdict": verdict, "advisory": advisory, "besides": [], "diagnosis": diagnosis, "checks": [], "cell": cell, "reason": "", **more}


def of(*entries: Entry) -> Baseline:
    return Baseline(entries, "baseline.json")


def entry(bug: str = "unknown:dropped", *cells: str, expires: date = TODAY) -> Entry:
    return Entry(bug, cells or (CELL,), "a reason", expires)


def test_a_finding_is_accepted_through_its_last_day_and_not_after_it() -> None:
    assert isinstance(of(entry()).judge(row(), TODAY), Accepted)
    assert isinstance(of(entry()).judge(row(), TODAY + timedelta(days=1)), Expired)
    assert of(entry()).expired(TODAY) == []
    assert of(entry()).expired(TODAY + timedelta(days=1)) == [entry()]


@pytest.mark.parametrize(
    "other",
    [
        row(OTHER),
        row(kinds=("scaled",)),
        row(advisory="deepspeed-7967", kinds=("scaled",)),
        row(advisory="deepspeed-7967", besides=["scaled"]),
        row(verdict="error"),
        row(verdict="pass"),
        row(verdict="by-design", advisory="unknown:dropped"),
    ],
)
def test_nothing_else_is_accepted(other: dict[str, Any]) -> None:
    assert of(entry()).judge(other, TODAY) is None


def test_a_known_bug_does_not_cover_what_it_does_not_explain() -> None:
    known = of(entry("deepspeed-7967"))
    assert isinstance(known.judge(row(advisory="deepspeed-7967"), TODAY), Accepted)
    assert known.judge(row(advisory="deepspeed-7967", besides=["scaled"]), TODAY) is None


def test_a_finding_that_gets_an_advisory_stays_accepted_and_its_entry_is_not_stale() -> None:
    named = row(advisory="deepspeed-7967")
    assert isinstance(of(entry()).judge(named, TODAY), Accepted)
    assert of(entry()).stale([named], TODAY) == []


def test_an_entry_is_stale_only_where_its_cell_was_judged_and_is_free_of_the_bug() -> None:
    both = of(entry("unknown:dropped", CELL, OTHER))
    assert both.stale([row(verdict="pass")], TODAY) == [entry()]  # the other cell was not selected: nothing is said of it
    assert both.stale([row(kinds=("scaled",))], TODAY) == [entry()]
    for silent in ("incompatible", "not-triggered", "skipped", "error", "timeout"):
        assert both.stale([row(verdict=silent)], TODAY) == []
    assert both.stale([], TODAY) == []
    assert both.stale([row(), row(verdict="pass")], TODAY) == []  # right in one environment, wrong in the other
    assert both.stale([row(verdict="error"), row(verdict="pass")], TODAY) == []  # the other environment gave no answer
    assert both.stale([row(verdict="pass")], TODAY + timedelta(days=1)) == []  # it is told as expired


def written(path: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {"schema": baseline.SCHEMA, "entries": [entry().to_json()]}
    for key, value in changes.items():
        if key in ("schema", "entries", "extra"):
            data[key] = value
        elif value is None:
            del data["entries"][0][key]
        else:
            data["entries"][0][key] = value
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


BAD: list[tuple[dict[str, Any], str]] = [
    ({"schema": "truestep-baseline-9"}, "has schema 'truestep-baseline-9', this truestep reads truestep-baseline-1"),
    ({"extra": 1}, "unknown key 'extra'"),
    ({"entries": {}}, "'entries' must be a list"),
    ({"entries": ["text"]}, "entry 1 must be an object"),
    ({"reason": None}, "entry 1 has no 'reason'"),
    ({"reason": " \n"}, "'reason' is empty"),
    ({"expires": None}, "entry 1 has no 'expires'"),
    ({"expires": "2026-02-30"}, "must be a date, YYYY-MM-DD, not '2026-02-30'"),
    ({"expires": "20261122"}, "must be a date, YYYY-MM-DD"),
    ({"expires": 20261122}, "must be a date, YYYY-MM-DD"),
    ({"until": "2026-11-22"}, "unknown key 'until'"),
    ({"bug": ""}, "'bug' must be an advisory id"),
    ({"cells": []}, "'cells' must be a list of cell ids"),
    ({"cells": [CELL, 3]}, "'cells' must be a list of cell ids"),
    ({"cells": [CELL, CELL]}, "is accepted twice for unknown:dropped"),
]


@pytest.mark.parametrize(("changes", "says"), BAD, ids=[says[:30] for _, says in BAD])
def test_a_bad_file_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BaselineError) as error:
        baseline.load(written(tmp_path / "baseline.json", **changes))
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_same_cell_and_bug_in_two_entries_is_refused(tmp_path: Path) -> None:
    two = [entry().to_json(), entry(expires=TODAY + timedelta(days=9)).to_json()]
    with pytest.raises(BaselineError, match="accepted twice"):
        baseline.load(written(tmp_path / "b.json", entries=two))


def test_what_is_no_json_is_one_line(tmp_path: Path) -> None:
    for text in ("{", "[]", "3", "\x00"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(BaselineError) as error:
            baseline.load(tmp_path / "b.json")
        assert "truestep baseline" in str(error.value)


def test_the_schema_refuses_what_load_refuses(tmp_path: Path) -> None:
    schema = Draft202012Validator(json.loads((SCHEMAS / "baseline-1.json").read_text()))
    schema.check_schema(schema.schema)
    assert schema.is_valid(json.loads(of(entry()).to_json()))
    dates = ("2026-02-30",)  # the one thing that a pattern cannot say
    for changes, _ in BAD:
        if changes.get("expires") not in dates:
            assert not schema.is_valid(json.loads(written(tmp_path / "b.json", **changes).read_text())), changes


names = st.sampled_from(["unknown:dropped", "deepspeed-7967", "error"])
days = st.dates(date(2026, 1, 1), date(2027, 12, 31))
entries = st.lists(st.tuples(names, st.sampled_from([CELL, OTHER, "x"]), st.text(min_size=1).filter(str.strip), days), unique_by=lambda e: e[:2], max_size=6)


@given(entries)
def test_a_baseline_that_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, some: list[tuple[str, str, str, date]]) -> None:
    made = of(*(Entry(bug, (cell,), reason, expires) for bug, cell, reason, expires in some))
    path = tmp_path_factory.mktemp("b") / "baseline.json"
    path.write_text(made.to_json(), encoding="utf-8")
    assert sorted(baseline.load(path).entries, key=str) == sorted(made.entries, key=str)


@given(entries, st.lists(st.sampled_from(["pass", "wrong", "error", "skipped"]), max_size=3))
def test_an_update_accepts_every_finding_and_keeps_the_reasons_of_what_is_still_there(some: list[tuple[str, str, str, date]], verdicts: list[str]) -> None:
    before = of(*(Entry(bug, (cell,), reason, expires) for bug, cell, reason, expires in some))
    rows = [row(name, verdict) for name, verdict in zip((CELL, OTHER, "x"), verdicts, strict=False)]
    after = baseline.accept(rows, "new", date(2028, 1, 1), before)
    for one in rows:
        found = after.judge(one, date(2026, 1, 1))
        assert isinstance(found, Accepted) == (one["verdict"] in ("wrong", "error"))
        if found is not None and before.entry(one) is not None:
            assert (found.entry.reason, found.entry.expires) == (before.entry(one).reason, before.entry(one).expires)  # type: ignore[union-attr]
    assert after.stale(rows, date.min) == []
    assert baseline.accept(rows, "", None, after).to_json() == after.to_json()  # nothing is new: nothing changes, no reason is asked for


def test_what_is_new_needs_a_reason_and_a_day() -> None:
    with pytest.raises(BaselineError, match="--reason"):
        baseline.accept([row()], " ", TODAY)
    with pytest.raises(BaselineError, match="--expires"):
        baseline.accept([row()], "because", None)
