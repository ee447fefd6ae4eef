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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saver_conformance import checks
from saver_conformance.cases.case import MODES, Mode, select_modes
from saver_conformance.claims import Claim
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.claims.known_savers import check_address, find_claim
from saver_conformance.errors import ClaimsFileError, UnknownSaverError, WaiverFileError
from saver_conformance.reports.outcome import outcome_of
from saver_conformance.reports.report_json import to_result
from saver_conformance.reports.result import Result
from saver_conformance.run import run_conformance
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import Verdict
from saver_conformance.verdict.waivers import Waiver, read_waivers

VERDICT = pytest.StashKey[Verdict]()
"""Where the configuration's stash has the verdict, once the suite has run."""


class ClauseBrokenError(AssertionError):
    """A test failed for what it says; a traceback of the suite would say nothing."""


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the options ask for, found to be right."""

    saver: str
    modes: tuple[Mode, ...]
    profile: Any
    waivers: tuple[Waiver, ...]
    claims: Claim | None
    savers_dir: Path | None


_SETTINGS = pytest.StashKey[_Settings]()


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
    group.addoption("--saver-claims", type=Path, metavar="FILE.toml", help="what is claimed")
    group.addoption("--savers-dir", type=Path, metavar="DIR", help="folder of savers with names")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and look whether the options can be right.

    Raises:
        pytest.UsageError: they cannot.
    """
    config.addinivalue_line("markers", "saver: a clause of the conformance suite in one mode")
    for level in ("must", "should", "may"):
        config.addinivalue_line("markers", f"{level}: a clause of this level")
    if config.getoption("--saver"):
        try:
            config.stash[_SETTINGS] = _read_settings(config)
        except (
            ValueError,
            ClaimsFileError,
            UnknownSaverError,
            WaiverFileError,
        ) as error:
            raise pytest.UsageError(str(error)) from error


def _read_settings(config: pytest.Config) -> _Settings:
    saver: str = config.getoption("--saver")
    waivers: Path | None = config.getoption("--saver-waivers")
    claims: Path | None = config.getoption("--saver-claims")
    savers_dir: Path | None = config.getoption("--savers-dir")
    check_address(find_claim(saver, Path.cwd(), savers_dir).address, Path.cwd())
    return _Settings(
        saver=saver,
        modes=select_modes(config.getoption("--saver-modes")),
        profile=config.getoption("--saver-profile"),
        waivers=read_waivers(waivers) if waivers else (),
        claims=read_claims(claims) if claims else None,
        savers_dir=savers_dir,
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m look
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the clauses' tests, and one for the waivers."""
    if _SETTINGS in config.stash:
        suite = _Suite.from_parent(session, name="saver_conformance", nodeid="saver_conformance")
        added: list[pytest.Item | pytest.Collector] = list(suite.collect())
        items.extend(item for item in added if isinstance(item, pytest.Item))
        # What is collected is counted by reports alone.
        report = pytest.CollectReport(suite.nodeid, "passed", None, added)
        config.hook.pytest_collectreport(report=report)


class _Suite(pytest.Collector):
    """The tests of one saver, and the run that they look at."""

    _outcome: Result | Exception | None = None

    @property
    def settings(self) -> _Settings:
        return self.config.stash[_SETTINGS]

    def collect(self) -> Iterator[pytest.Item]:
        for item in checks.checks():
            clause = SPEC[item.clause]
            for mode in self.settings.modes:
                if mode.matches(clause.modes):
                    test = _ClauseItem.from_parent(self, name=f"{clause.id}[{mode}]")
                    test.clause, test.mode = clause.id, mode.name
                    test.add_marker("saver")
                    test.add_marker(clause.level.lower())
                    yield test
        if self.settings.waivers:
            waivers = _WaiversItem.from_parent(self, name="waivers")
            waivers.add_marker("saver")
            yield waivers

    def result(self) -> Result:
        """The result; the suite runs when it is requested the first time."""
        if self._outcome is None:
            try:
                self._outcome = self._run()
            except Exception as error:  # told by every test, but found out once
                self._outcome = error
        if isinstance(self._outcome, Exception):
            raise ClauseBrokenError(f"no verdict: {self._outcome}")
        return self._outcome

    def _run(self) -> Result:
        selected = {item.mode for item in self.session.items if isinstance(item, _ClauseItem)}
        verdict = run_conformance(
            self.settings.saver,
            modes=[mode for mode in MODES if mode.name in selected],
            profile=self.settings.profile,
            waivers=self.settings.waivers,
            claims=self.settings.claims,
            savers_dir=self.settings.savers_dir,
        )
        self.config.stash[VERDICT] = verdict
        return to_result(verdict)


class _SuiteItem(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ClauseBrokenError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.config.rootpath, None, self.name

    def result(self) -> Result:
        assert isinstance(self.parent, _Suite)
        return self.parent.result()


class _ClauseItem(_SuiteItem):
    """One clause in one mode."""

    clause: str
    mode: str

    def runtest(self) -> None:
        outcome = outcome_of(self.result(), self.clause, self.mode)
        if outcome.kind == "failed":
            lines = (f"{self.clause} {SPEC[self.clause].text}", *outcome.details.splitlines())
            raise ClauseBrokenError("\n  ".join(lines))
        if outcome.kind == "error":
            raise ClauseBrokenError(outcome.message)
        if outcome.status in ("waived", "deviation"):
            pytest.xfail(outcome.message)
        if outcome.kind == "skipped":
            pytest.skip(outcome.message)


class _WaiversItem(_SuiteItem):
    """Every waiver is needed."""

    def runtest(self) -> None:
        if faults := self.result().waiver_faults:
            raise ClauseBrokenError("\n".join(faults))
