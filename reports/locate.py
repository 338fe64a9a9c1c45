"""Where a project pins the version of a package: the file and the line.

Read by line, so that the line is known and a file that is half written still says what it can. Names are compared as PEP 503 normalises them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

#: where a pin is looked for in a folder, in this order
ORDER = (
    "requirements*.txt", "requirements/*.txt", "constraints*.txt", "pyproject.toml", "uv.lock", "poetry.lock", "Pipfile.lock", "pylock*.toml",
    "setup.cfg", "tox.ini", "environment*.yml", "environment*.yaml",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """line: from 1; text: that line; exact: how well it pins the version: 3 this very one, 2 a range with it, 1 the name alone, 0 not named."""

    path: Path
    line: int = 1
    text: str = ""
    exact: int = 0


@dataclass(frozen=True)
class Pin:
    """A package named in a file. ``specifier``: None where it cannot be told."""

    name: str
    specifier: SpecifierSet | None
    line: int
    text: str


def files(folder: Path) -> list[Path]:
    """The files of a folder that may pin something, in the order of ``ORDER``."""
    return list(dict.fromkeys(path for pattern in ORDER for path in sorted(folder.glob(pattern)) if path.is_file()))


def locate(package: str, version: str, paths: Sequence[Path]) -> Place | None:
    """The line that pins this package best (see ``Place.exact``), the first one of those that are as good; else the first line of the first file.

    None without files. Raises OSError for one that cannot be read.
    """
    best: Place | None = None
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        first = Place(path, 1, lines[0] if lines else "")
        for place in (first, *(Place(path, pin.line, pin.text, _exact(pin, version)) for pin in pins(path.name, lines) if pin.name == _name(package))):
            if best is None or place.exact > best.exact:
                best = place
    return best


def pins(name: str, lines: Sequence[str]) -> Iterator[Pin]:
    """Every package that a file of this name pins."""
    if name == "Pipfile.lock":
        return _pipfile_lock(lines)
    if name.endswith(".lock") or re.fullmatch(r"pylock(\..+)?\.toml", name):
        return _lock(lines)
    if name.endswith(".toml"):
        return _toml(lines)
    if name.endswith((".ini", ".cfg")):
        return _ini(lines)
    if name.endswith((".yml", ".yaml")):
        return _conda(lines)
    return _requirements(lines)


def _name(text: str) -> str:
    return str(canonicalize_name(text))


def _exact(pin: Pin, version: str) -> int:
    if pin.specifier is None:
        return 1
    try:
        admits = pin.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        admits = version in str(pin.specifier)
    single = any(one.operator in ("==", "===") and "*" not in one.version for one in pin.specifier)
    return 1 if not admits else 3 if single else 2


_LOOSE = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?:[=<>!~@;(].*)?$", re.DOTALL)


def _pin(text: str, line: int, shown: str) -> Pin | None:
    """What a requirement (PEP 508) names; one that cannot be read whole (``{env:VERSION}``) by its name alone."""
    text = re.sub(r"(^|\s)--?[a-z].*$", "", text.strip()).strip()  # the options of a line: --hash=...
    try:
        one = Requirement(text)
    except InvalidRequirement:
        loose = _LOOSE.match(text)
        egg = re.search(r"[#&]egg=([\w.-]+)", text)
        found = egg[1] if egg else loose[1] if loose else ""
        return Pin(_name(found), None, line, shown) if found else None
    return Pin(_name(one.name), one.specifier if str(one.specifier) else None, line, shown)


def _requirements(lines: Sequence[str]) -> Iterator[Pin]:
    """``requirements.txt`` and constraints: comments, continued lines, options, editable ones."""
    start, gathered = 0, ""
    for number, line in enumerate(lines, start=1):
        start = start if gathered else number
        text = re.sub(r"(^|\s)#.*$", "", line)
        if text.rstrip().endswith("\\"):
            gathered += text.rstrip()[:-1] + " "
            continue
        text, gathered = re.sub(r"^\s*(-e|--editable)[\s=]+", "", gathered + text), ""
        if text.strip() and (found := _pin(text, start, lines[start - 1])):
            yield found


def _quoted(line: str) -> tuple[list[str], str]:
    """The strings of a line of TOML, and the line without them and without its comment."""
    strings, rest, at = [], "", 0
    for match in re.finditer(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|#.*$", line):
        rest += line[at : match.start()] + ("''" if match[0][0] != "#" else "")
        at = match.end()
        if match[0][0] != "#":
            strings.append(match[1] if match[1] is not None else match[2])
    return strings, rest + line[at:]


_HOLDS = re.compile(r"dependencies|dependency-groups|optional-dependencies|\brequires$|\bdeps$")


def _toml(lines: Sequence[str]) -> Iterator[Pin]:
    """``pyproject.toml``: the strings under a key or in a table that is about dependencies, and Poetry's ``name = "version"``."""
    table, key, depth = "", "", 0
    for number, line in enumerate(lines, start=1):
        strings, bare = _quoted(line)
        if depth == 0 and (header := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)):
            table, key = header[1].replace('"', "").replace("'", ""), ""
            continue
        if depth == 0 and (assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line)):
            key = assigned[1].strip("\"'")
            if table.startswith("tool.poetry") and table.endswith("dependencies"):
                said = re.search(r"""(?:=|version\s*=)\s*["']([^"']*)["']""", line[assigned.end() - 1 :])
                yield Pin(_name(key), _poetry(said[1]) if said else None, number, line)
                continue
        depth = max(0, depth + bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}"))
        if _HOLDS.search(f"{table}.{key}"):
            for text in strings:
                if found := _pin(text, number, line):
                    yield found


def _poetry(text: str) -> SpecifierSet | None:
    """``^1.2`` and ``~1.2`` are ranges of Poetry's own; a bare version is that version."""
    text = f"=={text}" if re.match(r"^\d[\w.]*$", text) else text
    if text.startswith("^"):
        text = f">={text[1:]}"
    try:
        return SpecifierSet(re.sub(r"^~(?=\d)", "~=", text))
    except InvalidSpecifier:
        return None


def _lock(lines: Sequence[str]) -> Iterator[Pin]:
    """``uv.lock``, ``poetry.lock``, ``pylock.toml``: the version of every ``[[package]]``."""
    name = ""
    inside = False
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("[") and line.rstrip().endswith("]"):
            inside, name = line.strip() in ("[[package]]", "[[packages]]"), ""
        elif inside and (value := re.match(r"\s*(name|version)\s*=\s*[\"']([^\"']+)[\"']", line)):
            if value[1] == "name":
                name = value[2]
            elif name:
                yield Pin(_name(name), _single(value[2]), number, line)


def _single(version: str) -> SpecifierSet | None:
    try:
        return SpecifierSet(f"=={version}")
    except InvalidSpecifier:
        return None


def _pipfile_lock(lines: Sequence[str]) -> Iterator[Pin]:
    name, at = "", 0
    for number, line in enumerate(lines, start=1):
        if opened := re.match(r"\s*\"([^\"]+)\":\s*\{", line):
            name, at = opened[1], number
        elif name and (said := re.match(r"\s*\"version\":\s*\"([^\"]+)\"", line)) and (found := _pin(name + said[1], number, line)):
            yield found
            name = ""
        elif name and line.strip().startswith("}"):  # from a repository: it has no version
            yield Pin(_name(name), None, at, lines[at - 1])
            name = ""


def _ini(lines: Sequence[str]) -> Iterator[Pin]:
    """``tox.ini`` and ``setup.cfg``: what stands under ``deps``, ``install_requires`` and the extras, with tox's factors."""
    section, key = "", ""
    for number, line in enumerate(lines, start=1):
        text = re.sub(r"(^|\s)[#;].*$", "", line) if not re.search(r";\s*\w+\s*[<>=!]", line) else re.sub(r"(^|\s)#.*$", "", line)
        if header := re.match(r"\[(.+)\]\s*$", line):
            section, key = header[1], ""
            continue
        if assigned := re.match(r"(\S[^=:]*?)\s*[=:](?!=)\s*(.*)$", text):
            key, text = assigned[1].strip(), assigned[2]
        elif text[:1].strip():
            continue
        if not (key in ("deps", "install_requires", "setup_requires", "tests_require", "requires", "constraints") or section == "options.extras_require"):
            continue
        text = re.sub(r"^\s*[\w.{},!-]+(\s*,\s*[\w.{},!-]+)*:\s+", "", text)
        if text.strip() and not text.strip().startswith("-") and (found := _pin(text, number, line)):
            yield found


def _conda(lines: Iterable[str]) -> Iterator[Pin]:
    """``environment.yml``: conda's own ``name=1.2=build`` and the list under ``pip``."""
    inside = False
    for number, line in enumerate(lines, start=1):
        text = re.sub(r"(^|\s)#.*$", "", line)
        if text[:1].strip() and not text.lstrip().startswith("-"):
            inside = text.startswith("dependencies:")
        elif inside and (item := re.match(r"\s*-\s+[\"']?([^\"']+?)[\"']?\s*$", text)):
            said = re.sub(r"^[\w./-]+::", "", item[1])
            conda = re.match(r"^([\w.-]+)\s*=\s*([^=\s]+)(?:=.*)?$", said)
            if conda and not conda[2].startswith("="):
                said = f"{conda[1]}=={conda[2]}"
            if found := _pin(said, number, line):
                yield found
