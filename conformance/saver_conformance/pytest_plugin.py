"""The suite in a project's own pytest run: one test for each clause and mode.

A project names the plugin in its ``conftest.py``,
``pytest_plugins = ["saver_conformance.pytest_plugin"]``, and runs
``pytest --saver package.module:function``. The tests are called like ``FILES-001[full-ddp]``;
``-k`` and ``-m`` select them, and the modes of those that are left are claimed. All of them look at
one run of the suite, which the first of them starts, so that the verdict is the one that the
command line gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saver_conformance import checks
from saver_conformance.case import MODES, Mode
from saver_conformance.cli import select_modes
from saver_conformance.report import replay_command
from saver_conformance.runner import run_conformance
from saver_conformance.shown import printable
from saver_conformance.spec import SPEC
from saver_conformance.verdict import Row, Verdict
from saver_conformance.waivers import read_waivers

SHOWN_FINDINGS = 3
"""Findings of one clause and mode that are shown."""

VERDICT = pytest.StashKey[Verdict]()
"""Where the configuration's stash has the verdict, once the suite has run."""


class ClauseBrokenError(AssertionError):
    """A test failed for what it says; a traceback of the suite would say nothing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line that make sense here."""
    group = parser.getgroup("saver_conformance", "conformance of a saver of models")
    group.addoption("--saver", metavar="PKG.MOD:FUNC", help="without it, no test is made")
    group.addoption(
        "--saver-modes", default="all", help="claimed modes, as in saver-conformance run"
    )
    group.addoption(
        "--saver-profile",
        choices=("smoke", "gate"),
        default="gate",
        help="which cases are tried (default: %(default)s)",
    )
    group.addoption("--saver-waivers", type=Path, metavar="FILE.toml", help="what is waived")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "saver: a clause of the conformance suite in one mode")
    for level in ("must", "should", "may"):
        config.addinivalue_line("markers", f"{level}: a clause of this level")


@pytest.hookimpl(tryfirst=True)  # before -k and -m look
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the clauses' tests, and one for the waivers."""
    if config.getoption("--saver"):
        suite = _Suite.from_parent(session, name="saver_conformance", nodeid="saver_conformance")
        items.extend(suite.collect())


class _Suite(pytest.Collector):
    """The tests of one saver, and the run that they look at."""

    _outcome: Verdict | Exception | None = None

    def collect(self) -> Iterator[pytest.Item]:
        modes = select_modes(self.config.getoption("--saver-modes"))
        for item in checks.checks():
            clause = SPEC[item.clause]
            for mode in modes:
                if mode.matches(clause.modes):
                    test = _ClauseItem.from_parent(self, name=f"{clause.id}[{mode}]")
                    test.clause, test.mode = clause.id, mode
                    test.add_marker("saver")
                    test.add_marker(clause.level.lower())
                    yield test
        if self.config.getoption("--saver-waivers"):
            waivers = _WaiversItem.from_parent(self, name="waivers")
            waivers.add_marker("saver")
            yield waivers

    def verdict(self) -> Verdict:
        """The verdict; the suite runs when it is asked for the first time."""
        if self._outcome is None:
            try:
                self._outcome = self._run()
            except Exception as error:  # told by every test, but found out once
                self._outcome = error
        if isinstance(self._outcome, Exception):
            raise ClauseBrokenError(f"no verdict: {self._outcome}")
        return self._outcome

    def _run(self) -> Verdict:
        selected = {item.mode for item in self.session.items if isinstance(item, _ClauseItem)}
        waivers: Path | None = self.config.getoption("--saver-waivers")
        verdict = run_conformance(
            self.config.getoption("--saver"),
            modes=[mode for mode in MODES if mode in selected],
            profile=self.config.getoption("--saver-profile"),
            waivers=read_waivers(waivers) if waivers else (),
        )
        self.config.stash[VERDICT] = verdict
        return verdict


class _SuiteItem(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ClauseBrokenError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.config.rootpath, None, self.name

    def verdict(self) -> Verdict:
        assert isinstance(self.parent, _Suite)
        return self.parent.verdict()


class _ClauseItem(_SuiteItem):
    """One clause in one mode."""

    clause: str
    mode: Mode

    def runtest(self) -> None:
        verdict = self.verdict()
        rows = [row for row in verdict.rows if (row.clause, row.mode) == (self.clause, self.mode)]
        if not rows:
            pytest.skip("no case of the profile demands it")
        [row] = rows
        if row.status == "waived":
            pytest.xfail(f"waived: {row.reason}")
        if row.status == "deviation":
            pytest.xfail(f"deviation: {row.findings[0].found}")
        if row.status == "fail":
            raise ClauseBrokenError("\n".join(_describe(row, verdict.saver)))
        if row.status != "pass" and verdict.levels[row.clause] == "MUST":
            raise ClauseBrokenError(f"inconclusive, {row.status}: {row.reason}")
        if row.status != "pass":
            pytest.skip(f"{row.status}: {row.reason}")


class _WaiversItem(_SuiteItem):
    """Every waiver is needed."""

    def runtest(self) -> None:
        if faults := self.verdict().waiver_faults:
            raise ClauseBrokenError("\n".join(faults))


def _describe(row: Row, saver: str) -> Iterator[str]:
    yield f"{row.clause} {SPEC[row.clause].text}"
    for finding in row.findings[:SHOWN_FINDINGS]:
        where = {"rank": finding.rank, "file": finding.file, "tensor": finding.tensor}
        parts = [f"{name} {value}" for name, value in where.items() if value is not None]
        yield printable(f"  {', '.join(parts) or 'the folder'}")
        yield printable(f"    expected: {finding.expected}")
        yield printable(f"    found:    {finding.found}")
    if len(row.findings) > SHOWN_FINDINGS:
        yield f"  ... {len(row.findings)} findings in all"
    yield f"  replay: {replay_command(row.findings[0].case, saver)}"
