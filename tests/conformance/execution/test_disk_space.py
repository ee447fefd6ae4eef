"""A full disk is nobody's fault."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.execution import case_runner, disk_space
from saver_conformance.execution.disk_space import why_no_room, why_no_space
from saver_conformance.execution.workload import Workload
from saver_conformance.run import replay
from saver_conformance.verdict.verdict import BROKEN, HARNESS_FAILED, Verdict

FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
NO_SPACE = str(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors"))


def pretend(monkeypatch: pytest.MonkeyPatch, free: int, files: int = 10**6) -> None:
    found = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=files and 10**7, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda _: found)


def test_why_no_room_names_folder_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, disk_space.ROOM - 1)
    assert f"the disk of /x is full: {disk_space.ROOM - 1} bytes" in why_no_room(Path("/x"))
    pretend(monkeypatch, disk_space.ROOM)
    assert why_no_room(Path("/x")) == ""


def test_why_no_room_counts_files_where_the_file_system_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, 1 << 40, files=3)
    assert "room for 3 more files" in why_no_room(Path("/x"))
    pretend(monkeypatch, 1 << 40, files=0)
    assert why_no_room(Path("/x")) == ""


def test_why_no_space_believes_no_saver_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, 1 << 40)
    assert why_no_space([NO_SPACE], [tmp_path]) == ""
    pretend(monkeypatch, 0)
    assert "is full" in why_no_space([NO_SPACE], [tmp_path])
    assert why_no_space(["KeyError: 28"], [tmp_path]) == ""
    assert "quota" in why_no_space([f"OSError: [Errno {errno.EDQUOT}] x"], [])


def run(function: str) -> Verdict:
    case = Case(Mode("full", "ddp"), world_size=2)
    return replay(case, f"tests.helpers.fake_savers:{function}", workload=WORKLOAD)


@pytest.mark.parametrize("function", ["fills_the_disk", "save", "raises_everywhere"])
def test_a_save_onto_a_full_disk_is_the_harness_failing(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_runner, "why_no_room", lambda _: "the disk of /x is full")
    verdict = run(function)
    assert verdict.exit_code == HARNESS_FAILED
    assert not verdict.findings
    assert verdict.records[0].reason == "the disk of /x is full"


def test_a_case_that_cannot_be_trained_on_a_full_disk_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(case_runner, "why_no_room", lambda _: "the disk of /x is full")
    case = Case(Mode("full", "ddp"), world_size=2, seed=500)
    verdict = replay(case, "tests.helpers.fake_savers:save", workload=WORKLOAD)
    assert verdict.exit_code == HARNESS_FAILED
    assert verdict.records[0].reason == "the disk of /x is full"


def test_a_saver_that_says_so_while_there_is_room_is_wrong() -> None:
    verdict = run("fills_the_disk")
    assert verdict.exit_code == BROKEN
    assert {finding.clause for finding in verdict.findings} == {"RANKS-002"}
