"""In which order the HTML report shows things: environments and findings of the newest releases first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from packaging.version import InvalidVersion, Version
from truestep.fixtures.drivers import frameworks as drivers

Document = Mapping[str, Any]


def view(document: Document) -> dict[str, Any]:
    """In which order things are shown.

    primary : of each environment the framework that most of its cells are about ("" for none)
    columns : environments by framework, the newest release first
    versions : of each framework all releases that were run or that bound an advisory's range, the oldest first
    findings : those of the newest releases first, then the unknown, then those of most cells; documented choices last
    """
    environments, cells, names = document["environments"], document["cells"], document["texts"]
    at = document["facets"].index("framework")
    primary = []
    for one in environments:
        of = Counter(names[cells[cell][at]] for cell in one["verdicts"]["cell"])
        primary.append(of.most_common(1)[0][0] if of else "")
    driven = [name for name in drivers() if any(name in one["packages"] for one in environments)]
    frameworks = list(dict.fromkeys([*sorted({*primary} - {""}), *driven, *(a["framework"] for a in document["advisories"])]))
    versions = {
        name: sorted(
            {str(e["packages"][name]) for e in environments if name in e["packages"]}
            | {str(end) for a in document["advisories"] if a["framework"] == name for span in a["affected"] for end in span if end},
            key=_version,
        )
        for name in frameworks
    }

    def newness(number: int) -> tuple[Any, ...]:
        packages = environments[number]["packages"]
        order = [primary[number], *(name for name in frameworks if name != primary[number])]
        ranks = [-versions[name].index(str(packages[name])) if packages.get(name) in versions.get(name, ()) else 1 for name in order]
        return (primary[number] == "", primary[number], *ranks, environments[number]["name"])

    columns = sorted(range(len(environments)), key=newness)
    newest = _newest(document, primary, columns)

    def weight(number: int) -> tuple[Any, ...]:
        one = document["findings"][number]
        latest = any(int(e) in newest for e in one["environments"])
        return (one["verdict"] == "by-design", one["verdict"] != "wrong", not latest, bool(one["advisory"]), -one["cells"], number)

    order = sorted(range(len(document["findings"])), key=weight)
    return {"primary": primary, "columns": columns, "versions": versions, "findings": order, "newest": sorted(newest)}


def _version(name: str) -> tuple[bool, Any]:
    try:
        return True, Version(name)
    except InvalidVersion:
        return False, name


def _newest(document: Document, primary: Sequence[str], columns: Iterable[int]) -> set[int]:
    """Environments of the newest release of their framework that was run as it is, without patches."""
    found: dict[str, str] = {}
    result = set()
    for number in columns:
        one, name = document["environments"][number], primary[number]
        version = one["packages"].get(name)
        if version is not None and not one["patched"] and found.setdefault(name, version) == version:
            result.add(number)
    return result
