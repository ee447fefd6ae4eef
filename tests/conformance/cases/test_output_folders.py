"""Cases whose output folder is the base's, is missing with its parents, or is on no common disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.profiles import OWN_DISKS_MODES, cases_of
from saver_conformance.cases.settings import settings
from saver_conformance.cases.strategies import make_case
from saver_conformance.claims import Claim
from saver_conformance.folder import node_disks
from saver_conformance.folder.layout import scan

FULL, LORA = Mode("full", "fsdp2"), Mode("lora", "fsdp2")
OVER_BASE, MISSING = {"setting": "output-is-base"}, {"setting": "missing-parents"}


@pytest.fixture
def own_disks() -> Case:
    return make_case(FULL, {"disks": "own"}, nodes=2)


def test_json_of_a_case_on_own_disks_is_read_back(own_disks: Case) -> None:
    assert Case.from_json(own_disks.to_json()) == own_disks
    assert Case.from_json(own_disks.to_short_json()) == own_disks


@pytest.mark.parametrize(
    ("mode", "row", "nodes"),
    [
        ("full-fsdp2", {"disks": "own"}, 1),
        ("full-fsdp2", {"disks": "own", "probe": "control_run"}, 2),
        ("full-fsdp2", {"disks": "own", "existing_save": "single"}, 2),
        ("full-zero3", {"disks": "own", "setting": "relative-output"}, 2),
        ("full-single", {**OVER_BASE, "existing_save": "single"}, 1),
        ("full-single", {**OVER_BASE, "probe": "fault_injection"}, 1),
        ("full-single", {**MISSING, "foreign_files": "strangers"}, 1),
        ("full-single", {**MISSING, "probe": "memory"}, 1),
    ],
)
def test_case_whose_output_folder_would_be_two_things_is_refused(mode, row, nodes) -> None:
    with pytest.raises(ValueError, match=r"disk|output folder"):
        make_case(Mode.parse(mode), row, nodes=nodes)


def test_only_folders_that_a_user_may_not_have_meant_may_be_refused(own_disks: Case) -> None:
    assert own_disks.may_be_refused
    assert make_case(Mode("lora", "single"), OVER_BASE).may_be_refused
    for case in (make_case(Mode("full", "single"), MISSING), make_case(FULL, {}, nodes=2)):
        assert not case.may_be_refused


def test_gate_and_survey_have_a_handful_of_such_cases() -> None:
    for profile in ("survey", "gate"):
        planned = [case for mode in MODES for case in cases_of(mode, profile)]
        own = [case.mode.name for case in planned if case.disks == "own"]
        # They need a world of their own, which a survey has no time for.
        assert sorted(own) == sorted(OWN_DISKS_MODES if profile == "gate" else ())
        for name in ("output-is-base", "missing-parents"):
            found = [case.mode.name for case in planned if case.setting == name]
            assert sorted(found) == sorted(settings()[name].modes)


def test_fit_gives_a_saver_that_needs_a_common_disk_one(own_disks: Case) -> None:
    for only in ({"disks": ["shared"]}, {"nodes": [1]}):
        fitted = Claim("a:b", only=only).fit(own_disks)
        assert fitted.disks == "shared"
        assert not fitted.may_be_refused


def test_fit_leaves_out_a_setting_that_what_lies_in_the_folder_forbids() -> None:
    occupied = Claim("a:b", only={"existing_save": ["single"]})
    fitted = occupied.fit(make_case(Mode("full", "single"), OVER_BASE))
    assert (fitted.existing_save, fitted.setting) == ("single", "usual")
    kept = occupied.fit(make_case(Mode("full", "zero3"), {"setting": "no-gather"}))
    assert (kept.existing_save, kept.setting) == ("single", "no-gather")


def test_missing_parents_are_missing_until_the_saver_makes_them(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):  # each rank does so
        path = settings()["missing-parents"].output(folder)
    assert not path.parent.parent.exists()
    assert not folder.is_dir()
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    assert set(scan(folder)) == {"config.json"}


def test_own_disks_have_one_path_that_leads_to_two_folders(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for first in (0, 2):
        paths.append(node_disks.enter(tmp_path, first))
        paths[-1].mkdir()
        (paths[-1] / f"of-{first}").touch()
    assert paths[0] == paths[1]
    assert set(scan(paths[1])) == {"of-2"}
    assert not node_disks.bring(tmp_path)  # the first machine has files
    assert set(scan(tmp_path / "out")) == {"of-0"}


@pytest.mark.parametrize("empty", [True, False])
def test_bring_takes_the_folder_of_the_machine_that_has_one(tmp_path, monkeypatch, empty) -> None:
    monkeypatch.chdir(tmp_path)
    if empty:
        (tmp_path / "out").mkdir()
    output = node_disks.enter(tmp_path, 1)
    assert not node_disks.bring(tmp_path)
    output.mkdir()
    (output / "config.json").touch()
    assert node_disks.bring(tmp_path)
    assert set(scan(tmp_path / "out")) == {"config.json"}
