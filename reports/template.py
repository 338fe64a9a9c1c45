"""Source text from a template: the lines that hold under some conditions, with values filled in.

A line of a template is ``conditions | source``: all of the conditions must hold (``!`` negates one), and ``$name``
stands for a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

Flags = dict[str, bool]
Values = dict[str, str]


def take(template: str, flags: Flags, values: Values) -> str:
    """The lines of the template whose conditions hold."""
    lines = []
    for line in template.strip("\n").splitlines():
        conditions, _, source = line.partition("|")
        if all(flags[name.removeprefix("!")] != name.startswith("!") for name in conditions.split()):
            lines.append(Template(source).substitute(values))
    return "".join(f"{line}\n" for line in lines)


def dictionary(opening: str, content: Mapping[str, Any], width: int) -> str:
    """``opening`` and then the dictionary, as many items on a line as fit."""
    lines = [opening]
    for item in _items(content, "}"):
        if len(lines[-1]) + len(item) >= width:
            lines.append(" " * len(opening) + item)
        else:
            lines[-1] += item if lines[-1] == opening else f" {item}"
    return "\n".join(lines)


def _items(content: Mapping[str, Any], end: str) -> Iterator[str]:
    """``"key": value,`` one by one; ``end`` closes the last of them."""
    for i, (key, value) in enumerate(content.items()):
        after = end if i == len(content) - 1 else ","
        if isinstance(value, dict):
            first, *rest = _items(value, "}" + after)
            yield f'"{key}": {{{first}'
            yield from rest
        else:
            yield f'"{key}": ' + (f'"{value}"' if isinstance(value, str) else repr(value)) + after


def product(*factors: str | int) -> str:
    """``K * 8``: names and numbers multiplied, the numbers already."""
    number, names = 1, []
    for factor in map(str, factors):
        if factor.isdigit():
            number *= int(factor)
        else:
            names.append(factor)
    return " * ".join([*names, *([str(number)] if number != 1 or not names else [])])


def needed(lines: Mapping[str, bool]) -> list[str]:
    """Those texts that are needed."""
    return [line for line, needs in lines.items() if needs]
