"""Advisories and patches through their public interface, on the DeepSpeed that is installed.

What needs another release is made here: a package named ``deepspeed`` whose version lies in the affected range,
beside the real source or a changed one. What needs the real framework imports it in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from truestep.fixtures.cell import parse
from truestep.fixtures.drivers import packages_of
from truestep.patches import Advisory, Patch, advisories
from truestep.patches.catalogue import patches
from truestep.patches.fingerprint import fingerprint

FLAGSHIP = {
    "framework": "deepspeed",
    "model": "mlp",
    "world_size": 1,
    "K": 4,
    "steps": 3,
    "stage": 2,
    "offload_optimizer": "cpu",
    "offload_param": "none",
    "dtype": "fp32",
    "grad_accum_dtype": "unset",
    "contiguous_gradients": "unset",
    "accumulate": "managed",
    "backward": "engine",
    "device": "cpu",
}


def known(identifier: str) -> Advisory:
    return next(one for one in advisories() if one.id == identifier)


def python(code: str, *, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; modules in ``path`` come first."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", PYTHONWARNINGS="ignore", **variables)
    environment.pop("RANK", None)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), environment.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=300
    )


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


# --- advisories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "right", "wrong"),
    [
        ("deepspeed-7967", ["0.15.1", "0.19.0", "0.19.8"], ["0.15.2", "0.16.9", "0.18.9", "0.18.9+cu128"]),
        ("deepspeed-7981", ["0.19.0", "0.19.8"], ["0.14.5", "0.15.1", "0.18.9"]),
        ("deepspeed-7985", ["0.18.4", "0.19.0"], ["0.18.5", "0.18.9"]),
        ("deepspeed-8382", ["0.19.8"], ["0.14.5", "0.19.7"]),
        ("deepspeed-7718", ["0.17.5", "0.18.3"], ["0.17.6", "0.18.2"]),
        ("deepspeed-6550", ["0.15.1", "0.16.5"], ["0.15.2", "0.16.4"]),
    ],
)
def test_ranges_are_half_open(identifier: str, right: list[str], wrong: list[str]) -> None:
    assert not any(known(identifier).affects(version) for version in right)
    assert all(known(identifier).affects(version) for version in wrong)


def test_an_unreadable_version_is_not_claimed() -> None:
    assert not known("deepspeed-7967").affects("my-own-build")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"K": 8, "dtype": "bf16", "world_size": 2}, True),
        ({"K": 3, "accumulate": "boundary_k"}, True),
        ({"K": 2}, False),
        ({"stage": 1}, False),
        ({"stage": 3}, False),
        ({"offload_optimizer": "none"}, False),
        ({"accumulate": "boundary"}, False),
        ({"framework": "trl"}, False),
    ],
)
def test_the_trigger_of_the_flagship_bug(change: dict[str, object], expected: bool) -> None:
    assert known("deepspeed-7967").predicts({**FLAGSHIP, **change}, "0.18.9") is expected
    assert not known("deepspeed-7967").predicts({**FLAGSHIP, **change}, "0.19.8")


@pytest.mark.parametrize("value", [False, "false"])
def test_a_boolean_knob_may_be_a_bool_or_its_text(value: object) -> None:
    facts = {**FLAGSHIP, "offload_optimizer": "none", "world_size": 2, "contiguous_gradients": value}
    assert known("deepspeed-8382").predicts(facts, "0.19.7")
    assert not known("deepspeed-8382").predicts({**facts, "contiguous_gradients": "unset"}, "0.19.7")


def test_a_missing_fact_matches_nothing() -> None:
    facts = {key: value for key, value in FLAGSHIP.items() if key != "K"}
    assert not known("deepspeed-7967").predicts(facts, "0.18.9")


def test_conditions_exclude_and_bound() -> None:
    one = Advisory(
        id="x-1",
        framework="x",
        title="t",
        affected=(("1", "2"), ("3", None)),
        trigger=({"K": {"min": 2, "max": 4}, "stage": {"not": (3,)}}, {"model": ("llama",)}),
        signature=("scaled",),
        links=(),
        cell="x-mlp-W1-K4",
    )
    assert [one.predicts({"K": k, "stage": 1}, "3.1") for k in (1, 2, 4, 5)] == [False, True, True, False]
    assert not one.predicts({"K": 2, "stage": 3}, "1.5")
    assert one.predicts({"model": "llama"}, "1.5")
    assert not one.predicts({"model": "llama"}, "2.5")
    assert (one.fixed_in("1.5"), one.fixed_in("3.5")) == ("2", None)
    assert one.why_not_affected("2.5") == "fixed in 2"
    assert one.why_not_affected("0.5") == "introduced in 1"


def test_a_faulty_advisory_is_refused() -> None:
    base = dict(id="x-1", framework="x", title="t", links=(), cell="", signature=("scaled",), trigger=(), affected=())
    for change in (
        {"signature": ("vanished",)},
        {"affected": (("2", "1"),)},
        {"trigger": ({"K": {"least": 3}},)},
        {"trigger": ({"K": 3},)},
    ):
        with pytest.raises(ValueError, match="x-1"):
            Advisory(**{**base, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("one", advisories(), ids=lambda one: one.id)
def test_every_advisory_is_complete_and_exports(one: Advisory) -> None:
    record = json.loads(json.dumps(one.to_osv()))
    assert record["id"].endswith(one.id)
    assert {"schema_version", "modified", "summary", "affected", "references"} <= set(record)
    events = record["affected"][0]["ranges"][0]["events"]
    assert events[0] == {"introduced": one.affected[0][0]}
    assert record["affected"][0]["package"] == {"ecosystem": "PyPI", "name": one.framework}
    assert record["database_specific"]["cell"] == one.cell
    assert one.framework in packages_of(parse(one.cell).framework)  # a trainer shows the bugs of what is below it
    assert one.measured, "an advisory says what was measured"
    assert one.patch is None or one.patch in {patch.id for patch in patches()}


# --- fingerprints ---------------------------------------------------------------------------------------------

SOURCE = '''
class A:
    @instrument_w_nvtx
    def f(self, x):
        """What it does."""
        return x + 1  # why
'''


def test_a_fingerprint_sees_code_and_nothing_else() -> None:
    def of(source: str) -> str:
        return fingerprint({"m": source}, ["m:A.f", "m:A.gone"])

    tidied = "class A:\n    def f(self, x):\n        return (x\n            + 1)\n"
    assert of(SOURCE) == of(tidied)
    assert of(SOURCE) != of(SOURCE.replace("+ 1", "+ 2"))
    assert of(SOURCE) != of(SOURCE + "    def gone(self): pass\n")


@pytest.mark.parametrize("patch", patches(), ids=lambda one: one.id)
def test_every_patch_watches_what_it_wraps(patch: Patch) -> None:
    assert set(patch.targets) <= set(patch.relies_on)
    assert patch.fingerprints
    assert all(len(digest) == 64 for digest in patch.fingerprints)


# --- lifecycle, on a package made for the purpose --------------------------------------------------------------

WRONG = "def f(x):\n    return x - 1\n"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A framework ``toyframe`` 1.5 with a bug in ``toyframe.core.f``, and a distribution that brings its cure."""
    package = tmp_path / "toyframe"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text(WRONG)
    digest = fingerprint({"toyframe.core": WRONG}, ["toyframe.core:f"])
    (tmp_path / "toycure.py").write_text(
        textwrap.dedent(f"""
        from truestep.patches import Advisory, Patch
        ADVISORY = Advisory(id="toyframe-1", framework="toyframe", title="f subtracts", affected=(("1", "2"),),
                            trigger=(), signature=("scaled",), links=(), cell="toyframe-mlp-W1-K1", patch="toyframe-1")
        PATCH = Patch(advisory=ADVISORY, module="toyframe.core", around={{"f": lambda original, x: original(x) + 2}},
                      relies_on=("f",), fingerprints={{"{digest}": "1.5"}})
        """)
    )
    _distribution(tmp_path, "toyframe", "1.5")
    _distribution(tmp_path, "toycure", "1", "[truestep.advisories]\ntoy = toycure\nbroken = there_is_no_such_module_here\n")
    return tmp_path


def _distribution(root: Path, name: str, version: str, entry_points: str = "") -> None:
    for old in root.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = root / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points)


def test_before_the_import_and_undone(toy: Path) -> None:
    result = python(
        """
        import json, sys
        import truestep.patches as patches
        finders = list(sys.meta_path)
        seen = [patches.patch("toyframe-1")[0].state, "toyframe" in sys.modules]
        assert patches.patch(["toyframe-1"])[0].state == "pending" and len(sys.meta_path) == len(finders) + 1
        import toyframe.core
        seen += [toyframe.core.f(5), patches.status()[0].state, patches.status()[0].version]
        seen += [type(toyframe.core.__loader__).__name__, sys.meta_path == finders]
        patches.patch("toyframe-1")
        seen.append(toyframe.core.f(5))
        patches.unpatch()
        seen += [toyframe.core.f(5), patches.status()[0].state]
        print(json.dumps(seen))
        """,
        path=toy,
    )
    assert answer(result) == [
        *("pending", False, 6, "applied", "1.5"),
        *("SourceFileLoader", True, 6, 4, "reverted"),
    ]
    assert result.stderr.count("patched toyframe-1") == 1


def test_after_the_import_the_very_same_function_returns(toy: Path) -> None:
    result = python(
        """
        import json
        import toyframe.core as core, truestep.patches as patches
        original, kept = core.f, []
        for _ in range(2):
            patches.patch(["toyframe-1"]); patches.patch(["toyframe-1"])
            kept.append(core.f)
            patches.unpatch(); patches.unpatch()
        # A reference that somebody kept does nothing any more.
        print(json.dumps([core.f is original, kept[0] is original, kept[0](5)]))
        """,
        path=toy,
    )
    assert answer(result) == [True, False, 4]


def test_two_patches_of_one_function_in_any_order() -> None:
    code = """
    import itertools, json, types
    from truestep.patches import Advisory, Patch
    advisory = Advisory(id="x-1", framework="x", title="t", affected=(), trigger=(), signature=(), links=(), cell="")
    def make(change):
        return Patch(advisory, "x", {"f": lambda original, x: change(original(x))}, ("f",), {})
    seen = []
    for order in itertools.product((0, 1), repeat=2):
        module = types.ModuleType("x")
        module.f = original = lambda x: x
        ours = [make(lambda y: y + 1), make(lambda y: y * 10)]
        undos = [one.wrap(module) for one in (ours if order[0] else ours[::-1])]
        seen.append(module.f(1))
        for undo in (undos if order[1] else undos[::-1]):
            undo()
        assert module.f is original
    print(json.dumps(seen))
    """
    assert answer(python(code)) == [11, 11, 20, 20]


def test_withdrawn_before_the_import(toy: Path) -> None:
    result = python(
        """
        import json, sys
        import truestep.patches as patches
        finders = list(sys.meta_path)
        patches.patch("toyframe-1"); patches.unpatch()
        import toyframe.core
        print(json.dumps([sys.meta_path == finders, toyframe.core.f(5), patches.status()[0].state]))
        """,
        path=toy,
    )
    assert answer(result) == [True, 4, "reverted"]


ASK = """
import json
import truestep.patches as patches
if {first}: import toyframe.core
patches.patch("toyframe-1")
import toyframe.core
one = patches.status()[0]
print(json.dumps([one.state, one.reason, toyframe.core.f(5)]))
"""


@pytest.mark.parametrize("first", [False, True])
def test_a_changed_source_is_refused_loudly(toy: Path, first: bool) -> None:
    (toy / "toyframe" / "core.py").write_text(WRONG.replace("- 1", "- 1 * 1"))
    result = python(ASK.format(first=first), path=toy)
    state, reason, value = answer(result)
    assert (state, value) == ("refused", 4)
    assert "install toyframe>=2" in reason
    assert result.stderr.count("REFUSED to patch toyframe-1") == 1


@pytest.mark.parametrize("first", [False, True])
def test_another_version_is_declined(toy: Path, first: bool) -> None:
    _distribution(toy, "toyframe", "2.0")
    result = python(ASK.format(first=first), path=toy)
    assert answer(result) == ["declined", "not affected: fixed in 2", 4]


def test_advisories_from_outside(toy: Path) -> None:
    code = "import json, truestep.patches as p; print(json.dumps([a.id for a in p.advisories('toyframe')]))"
    result = python(code, path=toy)
    assert answer(result) == ["toyframe-1"]
    assert result.stderr.count("'broken'") == 1


def test_an_unknown_id_is_an_error() -> None:
    from truestep.patches import patch

    with pytest.raises(ValueError, match="deepspeed-7967"):
        patch("deepspeed-1")


def test_importing_the_room_imports_no_framework() -> None:
    code = """
    import json, sys
    import truestep.patches as p
    p.advisories(); p.status()
    print(json.dumps([name for name in ("torch", "deepspeed", "numpy") if name in sys.modules]))
    """
    assert answer(python(code)) == []


# --- the real framework ---------------------------------------------------------------------------------------

DEEPSPEED = importlib.util.find_spec("deepspeed")
needs_deepspeed = pytest.mark.skipif(DEEPSPEED is None, reason="deepspeed is not installed")


@needs_deepspeed
@pytest.mark.parametrize("first", [False, True])
def test_on_the_installed_deepspeed(first: bool) -> None:
    """Affected and known: applied, then the very same functions again. Otherwise: declined, with the reason."""
    code = f"""
    import json, sys
    import truestep.patches as patches
    from truestep.patches.catalogue import patches as catalogue
    import importlib
    def now(one):
        owner = importlib.import_module(one.module)
        found = []
        for target in one.targets:
            thing = owner
            for part in target.split("."): thing = vars(thing).get(part)  # not there in every release
            found.append(thing)
        return found
    ours = catalogue("deepspeed")
    if not {first}:
        patches.patch()
        assert "deepspeed" not in sys.modules
        before = None
    else:
        before = [now(one) for one in ours]
        patches.patch()
    during = [now(one) for one in ours]
    states = {{one.id: [one.state, one.reason, one.version] for one in patches.status()}}
    patches.unpatch()
    after = [now(one) for one in ours]
    same = before is None or all(a is b for x, y in zip(before, after) for a, b in zip(x, y))
    wrapped = [[one.module, target] for one, x, y in zip(ours, during, after)
               for target, a, b in zip(one.targets, x, y) if a is not b]
    print(json.dumps([states, same, wrapped]))
    """
    states, same, wrapped = answer(python(code))
    version = importlib.metadata.version("deepspeed")
    assert same
    applied = [one for one in patches("deepspeed") if states[one.id][0] == "applied"]
    assert {tuple(pair) for pair in wrapped} == {(one.module, target) for one in applied for target in one.targets}
    for one in patches("deepspeed"):
        state, reason, seen = states[one.id]
        assert seen == version
        if one.advisory.affects(version):
            assert state in ("applied", "refused"), reason
        else:
            assert state == "declined"
            assert reason.startswith("not affected: ")


@needs_deepspeed
@pytest.mark.skipif(
    DEEPSPEED is None or Version(importlib.metadata.version("deepspeed")) < Version("0.19.0"),
    reason="needs a deepspeed without these bugs",
)
def test_a_fixed_source_under_an_affected_version_is_refused(tmp_path: Path) -> None:
    """The second guard alone: the version says affected, the source is not one that the cure was run on."""
    assert DEEPSPEED is not None and DEEPSPEED.origin is not None
    (tmp_path / "deepspeed").symlink_to(Path(DEEPSPEED.origin).parent, target_is_directory=True)
    _distribution(tmp_path, "deepspeed", "0.18.9")
    code = """
    import json
    import truestep.patches as p
    print(json.dumps([[one.state, one.reason] for one in p.patch(["deepspeed-7967", "deepspeed-7981"])]))
    """
    result = python(code, path=tmp_path)
    for state, reason in answer(result):
        assert state == "refused"
        assert "deepspeed>=0.19.0" in reason
    assert result.stderr.count("REFUSED") == 2
