"""What a probe asserts on: the verdict of its cell, and what that means for pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from truestep.fixtures.cell import Cell
    from truestep.gating import Gate


class Step:
    """What a probe asserts on."""

    def __init__(self, verdict: Any, cell: Cell, question: str, config: pytest.Config, gate: Gate | None = None) -> None:
        self.verdict, self.cell, self.question, self.config, self.gate = verdict, cell, question, config, gate

    def must_be_right(self) -> None:
        __tracebackhide__ = True
        from truestep.reports import terminal
        from truestep.reports.baseline import Accepted

        verdict = self.verdict
        borne = self.gate.judge(verdict.to_json()) if self.gate is not None else None
        if isinstance(borne, Accepted):
            pytest.xfail(str(borne))
        if borne is not None:
            pytest.fail("\n".join([str(borne), *terminal.finding(self.question, verdict)]), pytrace=False)
        if self.config.getoption("--expect-known"):
            self._must_be_as_predicted()
            return
        if verdict.verdict == "pass":
            return
        if verdict.verdict == "by-design":
            pytest.xfail(f"by design: {verdict.advisory} {verdict.link}")
        if verdict.verdict in ("incompatible", "not-triggered", "skipped"):
            if self.config.getoption("--strict-cells"):
                pytest.fail(f"{verdict.verdict}: {verdict.reason} (--strict-cells)", pytrace=False)
            pytest.skip(f"{verdict.verdict}: {verdict.reason}")
        pytest.fail("\n".join(terminal.finding(self.question, verdict)), pytrace=False)

    def _must_be_as_predicted(self) -> None:
        """Green exactly when the advisories predict this: no more findings and no fewer."""
        __tracebackhide__ = True
        from truestep.reports import known, terminal

        verdict = self.verdict
        versions = verdict.versions
        foreseen = [a for a in known.predicted(self.cell, versions, verdict.facts) if not self._cured(a)]
        if verdict.verdict in ("wrong", "by-design"):
            if verdict.advisory in [a.id for a in foreseen] and not verdict.besides:
                pytest.xfail(f"expected: {verdict.advisory}")
            pytest.fail("\n".join(["not predicted by any advisory:", *terminal.finding(self.question, verdict)]), pytrace=False)
        if verdict.verdict == "pass" and foreseen:
            pytest.fail(f"{foreseen[0].id} predicts this cell to be wrong on {foreseen[0].framework} {versions[foreseen[0].framework]}, but it is right: "
                        "its trigger or its versions are too wide", pytrace=False)  # fmt: skip
        if verdict.verdict in ("error", "timeout"):
            pytest.fail("\n".join(terminal.finding(self.question, verdict)), pytrace=False)
        if verdict.verdict != "pass":
            pytest.skip(f"{verdict.verdict}: {verdict.reason}")

    def _cured(self, advisory: Any) -> bool:
        # a patch that declined or was refused cures nothing
        return any(line.startswith(f"applied {advisory.patch}:") for line in self.verdict.patches)
