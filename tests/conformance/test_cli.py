"""The command line: exit codes, one message for a wrong call, nothing left after an interrupt."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saver_conformance import cli
from saver_conformance.cases.axis_text import AXES
from saver_conformance.cases.case import MODES, Case, Mode, select_modes
from saver_conformance.errors import HarnessFailedError
from saver_conformance.execution import pipeline
from saver_conformance.reports.advice import ADVICE
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import CaseRecord, Verdict, aggregate

ROOT = Path(__file__).parents[2]
LONG = 300
"""Seconds; more than anything here takes on the busiest machine."""


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


def make_verdict(case: Case, status: str = "run") -> Verdict:
    ran = {"FILES-001": ()} if status == "run" else {}
    record = CaseRecord(case, ("FILES-001",), status, "", ran)  # type: ignore[arg-type]
    levels = {"FILES-001": SPEC["FILES-001"].level}
    rows = aggregate([record], (case.mode,), levels, {"FILES-001": MODES})
    return Verdict("pkg:save", "smoke", (case.mode,), rows, (record,), levels)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--modes", "full-nowhere"),
        ("run", "--modes", ","),
        ("run", "--profile", "huge"),
        ("run", "--save-limit", "0"),
        (),
        ("run", "--no-such-option"),
        ("explain", "NOTHING-001"),
        ("list", "elephants"),
        ("replay", "no-such-file.json"),
        ("no-such-command",),
    ],
)
def test_a_wrong_call_is_one_message(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 3
    shown = capsys.readouterr()
    assert shown.err
    assert "Traceback" not in shown.err + shown.out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mode": "full-ddp", "x": 1}', '{"mode": 1}'])
def test_a_file_that_is_no_case(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.json"
    path.write_text(content)
    assert call("replay", str(path)) == 3
    assert "no case in" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("run", 0), ("unavailable", 2), ("error", 3)])
def test_the_verdict_is_the_exit_code(
    status: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(Mode("full", "single"))
    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: make_verdict(case, status))
    assert call("run", "--modes", "full-single") == code


def test_a_failing_harness_is_no_accusation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Verdict:
        raise HarnessFailedError("no loopback")

    monkeypatch.setattr(cli, "run_conformance", fail)
    assert call("run") == 3
    assert capsys.readouterr().err.strip() == "saver-conformance: no loopback"


def test_replay_reads_a_file_or_stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = Case(Mode("full", "ddp"), seed=3, world_size=2)
    replayed: list[tuple[Case, str]] = []

    def replay(case: Case, saver: str, **_: object) -> Verdict:
        replayed.append((case, saver))
        return make_verdict(case)

    monkeypatch.setattr(cli, "replay", replay)
    path = tmp_path / "case.json"
    path.write_text(case.to_json())
    assert call("replay", str(path), "--saver", "a.b:c") == 0
    with path.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert call("replay", "-") == 0
    assert replayed == [(case, "a.b:c"), (case, "canonical_saver:save_trained_model")]


def test_lists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call("list", "modes") == 0
    assert capsys.readouterr().out.split() == [mode.name for mode in MODES]
    assert call("list", "clauses") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SPEC)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "odd.py").write_text(
        "def save(cfg, trainer, model): ...\ndef _private(cfg, trainer, model): ...\n"
        "def other(): ...\n@mutant()\ndef spoils(folder): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    assert call("list", "savers", "--savers-dir", "mine") == 0
    assert capsys.readouterr().out.split() == [
        "canonical_saver:save_trained_model",
        "mine.odd:save",
        "mine.odd:spoils",
    ]


def test_explaining_a_clause(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", "files-001") == 0
    shown = capsys.readouterr().out
    assert SPEC["FILES-001"].text in shown
    assert SPEC["FILES-001"].reason in shown
    assert shown.rstrip().endswith(ADVICE["FILES-001"])


def test_modes_are_named_by_patterns() -> None:
    assert select_modes("all") == MODES
    assert select_modes("lora-ddp, full-single") == (
        Mode("full", "single"),
        Mode("lora", "ddp"),
    )
    assert {mode.engine for mode in select_modes("*-zero3")} == {"zero3"}


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from saver_conformance import cli
from saver_conformance.execution import workload
fake = "tests.helpers.fake_workload"
workload.Workload.__init__.__defaults__ = (fake, fake, fake, False, "")
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, "run", "--modes", "full-ddp", "--saver"]
    run = subprocess.Popen(
        [*command, "tests.helpers.fake_savers:sleeps_on_rank_1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: any(tmp_path.glob("saver-conformance-*/case-2")))
    assert len(find_processes(tmp_path)) >= 3
    os.killpg(run.pid, number)
    shown, errors = run.communicate(timeout=LONG)
    assert run.returncode == cli.INTERRUPTED
    assert errors.decode().strip() == "saver-conformance: interrupted; no verdict"
    assert b"Traceback" not in shown
    wait_for(lambda: not find_processes(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_several_interrupts_are_as_quiet_as_one(pause: float, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, "run", "--modes", "full-ddp", "--saver"]
    run = subprocess.Popen(
        [*command, "tests.helpers.fake_savers:sleeps_on_rank_1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: any(tmp_path.glob("saver-conformance-*/case-2")))
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(pause)
    _, errors = run.communicate(timeout=LONG)
    assert run.returncode == cli.INTERRUPTED
    assert errors.decode().strip() == "saver-conformance: interrupted; no verdict"
    wait_for(lambda: not find_processes(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_closes_ends_the_run_as_a_signal_does(tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + DRIVER
    command = [sys.executable, "-c", code, "run", "--modes", "full-ddp", "--saver"]
    run = subprocess.Popen(
        [*command, "tests.helpers.fake_savers:sleeps_on_rank_1"],
        env={**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm"},
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    wait_for(lambda: any(tmp_path.glob("saver-conformance-*/case-2")))
    os.close(master)
    assert run.wait(timeout=LONG) == cli.INTERRUPTED
    wait_for(lambda: not find_processes(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_keeps_what_was_found(tmp_path: Path) -> None:
    report, temporary = tmp_path / "report", tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", DRIVER, "run", "--modes", "full-ddp", "--save-limit", "600"]
    command += ["--report", str(report)]
    command += ["--saver", "tests.helpers.fake_savers:sleeps_from_case_9_on"]
    run = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: any(temporary.glob("saver-conformance-*/case-9")))
    os.killpg(run.pid, signal.SIGINT)
    shown, errors = run.communicate(timeout=LONG)
    assert run.returncode == cli.INTERRUPTED
    assert errors.decode().strip() == "saver-conformance: interrupted"
    assert b"FILES-001" in shown
    assert b"not every planned case was run" in shown
    plain = json.loads((report / "report.json").read_text())
    assert plain["interrupted"]
    assert 0 < plain["totals"]["executed"] < plain["totals"]["expected"]
    assert {item["reason"] for item in plain["not_run"]} == {pipeline.INTERRUPTED}
    assert list(temporary.iterdir()) == []


def wait_for(happens: Callable[[], bool]) -> None:
    """Wait until something happens, however busy the machine is."""
    deadline = time.monotonic() + LONG
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def find_processes(temporary: Path) -> list[int]:
    """Processes that were started with ``temporary`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(temporary).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def test_the_judge_needs_no_framework_to_answer_questions() -> None:
    code = (
        "import sys; from saver_conformance import cli\n"
        "try: cli.main(['list', 'modes'])\n"
        "except SystemExit: print(json.dumps(sorted({'torch', 'transformers'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import json\n" + code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("name", ["model_argument", "TIE", "foreign_files", "names"])
def test_explaining_an_axis(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", name) == 0
    shown = capsys.readouterr().out
    axis = AXES[name.lower()]
    for text in (name.lower(), axis.text, *axis.values.values()):
        assert text in shown
    assert shown.count("(default)") == 1


def test_the_axes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "axes") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(AXES)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert re.fullmatch(
        r"saver-conformance \d+\.\d+\S*, spec \d+\.\d+\+[0-9a-f]{8}\n", capsys.readouterr().out
    )


def test_the_smallest_case_is_left_nowhere_unasked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(Mode("full", "single"), tie="contrary")
    verdict = replace(make_verdict(case), smallest=case)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: verdict)
    call("run", "--profile", "explore")
    assert list(tmp_path.iterdir()) == []
    assert '{"mode": "full-single", "tie": "contrary"}' in capsys.readouterr().out
    call("run", "--profile", "explore", "--report", "rep")
    assert Case.from_json((tmp_path / "rep" / "smallest-case.json").read_text()) == case


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"mode": "full-single", "architecture": "gpt"}', "architecture: expected one of llama"),
        ('{"mode": "full-single", "seed": "x"}', "seed: expected a whole number"),
        ('{"mode": "lora-single", "adapter": {"rank": 4}}', "unknown keys in an adapter: rank"),
        ('{"mode": "full-ddp", "after": {"mode": "full-ddp", "dtype": 1}}', "dtype: expected one"),
    ],
)
def test_a_value_that_no_case_has_is_told_in_one_line(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.json"
    path.write_text(content)
    assert call("replay", str(path)) == 3
    shown = capsys.readouterr().err
    assert told in shown
    assert len(shown.strip().splitlines()) == 1


def test_a_folder_for_copies_has_to_be_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    case = tmp_path / "case.json"
    case.write_text('{"mode": "full-single"}')
    assert call("replay", str(case), "--keep", str(tmp_path)) == 3
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"
