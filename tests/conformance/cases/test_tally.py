"""The table of what profiles cover counts each value, and names every axis that a plan has."""

from __future__ import annotations

from dataclasses import replace

from saver_conformance.cases.case import MODES, Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import fitting, make_case
from saver_conformance.cases.tally import tally

LORA = Mode("lora", "ddp")


def cells(lines: list[str]) -> dict[tuple[str, str], list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(axis, value): counts for axis, value, *counts in rows}


def test_tally_counts_the_cases_of_each_value() -> None:
    first = make_case(LORA, {"targets": "all", "special_values": True})
    second = make_case(LORA, {"result": "merged"})
    full = make_case(Mode("full", "ddp"), {})
    found = cells(list(tally({"one": (first, second), "two": (replace(full, after=second),)})))
    assert found["axis", "value"] == ["one", "two"]
    assert found["targets", "all"] == ["1", "0"]
    assert found["special_values", "true"] == ["1", "0"]
    assert found["special_values", "false"] == ["1", "1"]
    assert found["result", "merged"] == ["1", "0"]
    assert found["after", "an earlier save"] == ["0", "1"]
    assert found["kind", "lora"] == ["2", "0"]
    assert found["cases", ""] == ["2", "1"]
    assert all(int(seconds) > 0 for seconds in found["seconds, estimated", ""])


def test_tally_the_survey_has_every_mode_and_every_setting() -> None:
    planned = [case for mode in MODES for case in cases_of(mode, "survey")]
    found = cells(list(tally({"survey": planned})))
    for mode in MODES:
        assert int(found["mode", mode.name][0]) > 0
    for setting in ("no-gather", "sharded-state-dict", "8-bit-base"):
        assert int(found["setting", setting][0]) > 0


def test_fitting_keeps_families_and_kinds_that_only_nightly_has_a_table_for() -> None:
    assert fitting({"kind": "ia3"}, LORA) == {"kind": "ia3"}
    assert fitting({"architecture": "bert"}, Mode("full", "ddp")) == {"architecture": "bert"}
