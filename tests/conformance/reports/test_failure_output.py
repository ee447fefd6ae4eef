"""What is told of saves that failed: each defect once, first, with the saver's own frames."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from saver_conformance.cases.case import Case, Mode
from saver_conformance.execution.workload import Workload
from saver_conformance.processes import world
from saver_conformance.reports.plain_text import told_failures
from saver_conformance.reports.report_json import replay_command, to_result, write_report
from saver_conformance.reports.terminal import print_verdict
from saver_conformance.run import replay, run_conformance
from saver_conformance.verdict.verdict import Verdict

FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
SINGLE, DDP = Mode("full", "single"), Mode("full", "ddp")
SAVERS = """
import json, os, time
from pathlib import Path

def strict(cfg, trainer, model):
    folder = Path(cfg.output_dir)
    if cfg.architecture == "custom":
        check(folder)
    if cfg.architecture == "mixtral":
        json.loads("{")
    folder.joinpath("model.safetensors").write_bytes(b"x")

def check(folder):
    raise ValueError(f"no views, please: {folder.parent.name}")

def waits(cfg, trainer, model):
    if os.environ["RANK"] == "0":
        time.sleep(600)

def nothing(cfg, trainer, model):
    pass

def says(cfg, trainer, model):
    print("hello")
    print("bye")
    Path(cfg.output_dir, "saved.txt").write_text("saved")
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with savers, from which they are imported."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "saving.py").write_text(SAVERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setattr(world, "GRACE", 0.5)
    return tmp_path


def show(verdict: Verdict, width: int = 120) -> str:
    text = io.StringIO()
    print_verdict(Console(file=text, width=width, highlight=False), verdict)
    return text.getvalue()


def run(function: str, modes: tuple[Mode, ...] = (SINGLE, DDP)) -> Verdict:
    return run_conformance(
        f"mine.saving:{function}", modes=modes, profile="smoke", workload=WORKLOAD
    )


def test_exceptions_are_told_once_by_type_and_place_and_first() -> None:
    verdict = run("strict")
    result = to_result(verdict)
    told = {(item.place, item.cases, item.modes) for item in told_failures(result)}
    lines = SAVERS.splitlines()
    check = next(n for n, line in enumerate(lines, 1) if "raise ValueError" in line)
    loads = next(n for n, line in enumerate(lines, 1) if "json.loads" in line)
    modes = ("full-single", "full-ddp")
    assert told == {
        (f"mine/saving.py:{check} in check", 2, modes),
        # The library raises; the line of the saver is the place.
        (f"mine/saving.py:{loads} in strict", 2, modes),
    }
    shown = show(verdict)
    for headline in (
        "  ValueError: no views, please: case-",
        "  json.decoder.JSONDecodeError: Exp",
    ):
        assert len(re.findall(f"^{re.escape(headline)}", shown, re.MULTILINE)) == 1
    assert shown.count("RANKS-002") == 2  # in the two headings
    other = shown.index(" (MUST) ")
    assert max(shown.index("ValueError"), shown.index("JSONDecodeError")) < other
    assert "saver_conformance/" not in shown[:other]
    assert shown.count("unchecked because of it: ") == 2


def test_exceptions_with_other_messages_at_one_place_are_one_failure() -> None:
    [failure] = [item for item in told_failures(to_result(run("strict"))) if "check" in item.place]
    assert len(failure.messages) >= 2
    assert {message.partition(":")[0] for message in failure.messages} == {"ValueError"}


def test_unchecked_clauses_say_the_exception(project: Path) -> None:
    verdict = run("strict", (SINGLE,))
    reasons = {row.reason for row in verdict.rows if row.status == "unavailable"}
    assert any("rank 0 raised: ValueError: no views" in reason for reason in reasons)
    write_report(verdict, project / "rep")
    for name, clause in (("index.html", "<strong>META-"), ("summary.md", "### META-")):
        text = (project / "rep" / name).read_text()
        assert text.index("in check") < text.index(clause)


def test_a_hang_says_what_the_other_ranks_did_and_where_it_waits() -> None:
    case = Case(DDP, world_size=2)
    verdict = replay(case, "mine.saving:waits", workload=WORKLOAD, save_limit=1)
    [failure] = told_failures(to_result(verdict))
    assert failure.kind == "hung"
    assert re.fullmatch(r"mine/saving.py:\d+ in waits", failure.place)
    assert failure.example is not None
    assert re.search(r"rank 1: returned after 0\.\d s", failure.example.found)


def test_a_save_that_changes_nothing_is_told_first() -> None:
    shown = show(run("nothing", (SINGLE,)))
    words = "The save changed no file in the output folder in "
    assert shown.index(words) < shown.index(" (MUST) ")
    assert words not in show(run("strict", (SINGLE,)))


def test_the_last_line_says_the_reason() -> None:
    verdict = run("strict")
    broken = {row.clause for row in verdict.rows if row.status == "fail"}
    musts = [clause for clause in broken if verdict.levels[clause] == "MUST"]
    last = show(verdict).rstrip().splitlines()[-1]
    number = f"{len(musts)} MUSTs are broken, in 2 of 2 claimed modes"
    assert last == f"mine.saving:strict does not conform: {number}"


@pytest.mark.parametrize("reason", ["strace is not installed", "[bold]no[/]"])
def test_reasons_of_what_is_unchecked_are_told_grouped(reason: str) -> None:
    from tests.helpers.verdicts import CHECKED, make_verdict

    from saver_conformance.verdict.verdict import CaseRecord

    clauses = [clause for clause in CHECKED if clause.startswith("CRASH")]
    records = [
        CaseRecord(
            Case(mode, world_size=1 if mode == SINGLE else 2),
            tuple(clauses),
            "run",
            blocked=dict.fromkeys(clauses, reason),
        )
        for mode in (SINGLE, DDP)
    ]
    shown = show(make_verdict("pkg:save", records, modes=(SINGLE, DDP)))
    assert f"unchecked: {clauses[0]} to {clauses[-1]} in full-single, full-ddp\n" in shown
    assert shown.count(reason) == 1


# The replay line


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize(
    ("case", "saver"),
    [
        (Case(DDP, world_size=2, tie="contrary"), "pkg.mod:save"),
        (Case(SINGLE, class_name='It\'s\\n"Ünder"$HOME`x`'), "it's; a saver"),
    ],
)
def test_the_replay_line_is_for_any_shell(
    shell: str, case: Case, saver: str, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    tool = tmp_path / "saver-conformance"
    code = "import json, sys; print(json.dumps([sys.argv[1:], sys.stdin.read()]))"
    tool.write_text(f"#!{sys.executable}\n{code}\n")
    tool.chmod(0o755)
    line = replay_command(case, saver)
    assert "\n" not in line
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", line], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    arguments, text = json.loads(done.stdout)
    assert arguments == ["replay", "-", "--saver", saver]
    assert Case.from_json(text) == case


def test_the_replay_line_has_only_what_is_unusual() -> None:
    line = replay_command(Case(DDP, world_size=2, tie="contrary"), "pkg.mod:save")
    text = '{"mode": "full-ddp", "tie": "contrary"}'
    assert line == f"echo '{text}' | saver-conformance replay - --saver pkg.mod:save"


# Looking on


def test_replay_passes_on_what_ranks_print_and_keeps_the_folder(project: Path) -> None:
    heard: list[tuple[int, str]] = []
    replay(
        Case(DDP, world_size=2),
        "mine.saving:says",
        workload=WORKLOAD,
        listen=lambda rank, line: heard.append((rank, line)),
        keep=project / "kept",
    )
    for rank in (0, 1):
        assert [line for number, line in heard if number == rank] == ["hello", "bye"]
    assert list((project / "kept" / "before").iterdir()) == []
    assert (project / "kept" / "after" / "saved.txt").read_text() == "saved"
