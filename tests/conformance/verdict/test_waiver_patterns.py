"""Waivers are looked at before the run, and one may cover the modes of a pattern."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.verdicts import make_record, make_verdict

from saver_conformance import cli
from saver_conformance.cases.case import Mode
from saver_conformance.errors import WaiverFileError
from saver_conformance.run import run_conformance
from saver_conformance.verdict.waivers import Waiver, read_waivers

SINGLE, DDP = Mode("full", "single"), Mode("full", "ddp")
WAIVER = Waiver("FILES-005", "full-*", "known", "https://example.org/1")


def test_a_pattern_waives_every_mode_that_it_matches() -> None:
    records = [make_record(mode, broken=("FILES-005",)) for mode in (SINGLE, DDP)]
    verdict = make_verdict("pkg:save", records, modes=(SINGLE, DDP), waivers=[WAIVER])
    assert (verdict.exit_code, verdict.count("waived"), verdict.waiver_faults) == (0, 2, ())
    other = replace(WAIVER, mode="lora-*")
    assert make_verdict("p:s", records, modes=(SINGLE, DDP), waivers=[other]).exit_code == 1


def test_a_pattern_that_one_mode_needs_is_no_fault() -> None:
    records = [make_record(SINGLE, broken=("FILES-005",))]
    assert make_verdict("p:s", records, modes=(SINGLE, DDP), waivers=[WAIVER]).exit_code == 0


def test_a_pattern_that_no_mode_needs_is_a_fault() -> None:
    verdict = make_verdict("p:s", modes=(SINGLE, DDP), waivers=[WAIVER])
    [fault] = verdict.waiver_faults
    assert "holds, remove the waiver: FILES-005 in full-*" in fault


def test_a_pattern_that_may_be_needed_is_no_fault() -> None:
    records = [make_record(SINGLE, unchecked=("FILES-005",))]
    verdict = make_verdict("p:s", records, modes=(SINGLE, DDP), waivers=[WAIVER])
    assert verdict.waiver_faults == ()


def test_a_pattern_of_modes_that_are_not_claimed_waits() -> None:
    verdict = make_verdict("p:s", modes=(SINGLE,), waivers=[replace(WAIVER, mode="lora-*")])
    assert verdict.waiver_faults == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[FILES-999.full-single]\nreason = "a"\nlink = "b"', "no clause is called FILES-999"),
        ('[FILES-005.full-singel]\nreason = "a"\nlink = "b"', "no mode is called full-singel"),
        ('[FILES-005."nope-*"]\nreason = "a"\nlink = "b"', r"no mode is called nope-\*"),
        ('[FILES-005.full-single]\nlink = "b"', r"\[FILES-005.full-single\] has no reason"),
        ("[FILES-005.full-single]", "has no reason and no link"),
        (
            '[FILES-005.full-single]\nreason = "a"\nlink = "b"\nmore = 1',
            "unknown keys more; expected reason and link",
        ),
        ('[FILES-005]\nreason = "a"\nlink = "b"', r"such as \[FILES-005.full-single\]"),
        ('[FILES-005.full-single]\nreason = 1\nlink = "b"', "reason: expected text, found 1"),
    ],
)
def test_a_wrong_file_ends_the_call_before_the_run(
    text: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text(text)
    with pytest.raises(WaiverFileError, match=told) as caught:
        read_waivers(path)
    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--waivers", str(path)])
    assert end.value.code == 3
    assert str(caught.value) in capsys.readouterr().err


def test_a_pattern_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text('[FILES-005."full-*"]\nreason = "known"\nlink = "https://example.org/1"\n')
    assert read_waivers(path) == (WAIVER,)


def test_a_wrong_waiver_in_python_ends_the_call_before_the_run() -> None:
    with pytest.raises(WaiverFileError, match="no mode is called full-nowhere"):
        run_conformance("no.such:saver", waivers=[replace(WAIVER, mode="full-nowhere")])
