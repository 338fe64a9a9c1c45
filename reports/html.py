"""The matrix as one HTML file that needs nothing else: no network, no other file, and hardly anything without JavaScript either.

What people read first (verdict, releases, environments, findings as text) is plain HTML (``html_parts``); the grid and the figures are drawn by
``assets/*.js`` from the packed document, which is embedded as JSON. Whatever stands in the document is text: it is escaped here, set with
``textContent`` there, and a Content-Security-Policy allows the two inline blocks below by their digests and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

from truestep.reports import html_parts, html_view
from truestep.reports.results import ResultsError

#: in the order in which they run; all share one scope
SCRIPTS = ("model.js", "figures.js", "findings.js", "grid.js", "page.js")


def render(document: Mapping[str, Any]) -> str:
    """The page of a packed document (``pack.pack``); raises ResultsError with one line for a document that is damaged."""
    try:
        view = html_view.view(document)
        parts = html_parts.parts(document, view)
        signs = {name: html_parts.SIGNS.get(name, ("?", ""))[0] for name in document["verdicts"]}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"the matrix is damaged ({type(error).__name__}: {error}); write it again with truestep report --json") from None
    style = _asset("report.css")
    script = "'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = _embedded({"document": document, "view": {**view, "signs": signs}})
    return Template(_asset("report.html")).substitute(policy=policy, style=style, script=script, data=data, **parts)


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(data: Any) -> str:
    """JSON that cannot leave its script element: no <, >, & and nothing but ASCII in it; no NaN, which JSON does not know."""
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
