"""Tables of pairs: a night's have the engine as one of their axes."""

from __future__ import annotations

import pytest

from saver_conformance.cases.case import MODES, Mode
from saver_conformance.cases.coverage import measure
from saver_conformance.cases.engine import WORLD_SIZES
from saver_conformance.cases.method import METHODS, Method
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import WIDE, is_valid
from saver_conformance.cases.tables import ENGINE, pairs_across, row_across, why_nowhere

pytestmark = pytest.mark.slow
ZERO3 = Mode("full", "zero3")


def modes_of(method: Method) -> tuple[Mode, ...]:
    return tuple(mode for mode in MODES if mode.method == method)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_across_engines_meet_every_family_and_kind(method: Method) -> None:
    modes = modes_of(method)
    table = pairs_across(modes)
    assert table.covered == table.possible
    for mode in modes:
        rows = [row for row in table.rows if row[ENGINE] == mode.engine]
        for axis in WIDE:
            if axis == "kind" and not mode.is_adapter:
                continue
            tried = mode.definition.axes.get(axis, WIDE[axis])
            able = {value for value in tried if is_valid({axis: value}, mode)}
            assert {row[axis] for row in rows} == able
    for kind in {row.get("kind") for row in table.rows}:
        families = {row["architecture"] for row in table.rows if row.get("kind") == kind}
        assert {
            family
            for family in WIDE["architecture"]
            if not why_nowhere({"architecture": family, **({"kind": kind} if kind else {})}, modes)
        } == families


def test_pairs_across_one_mode_are_all_of_its_own() -> None:
    rows = pairs_across((ZERO3,)).rows
    assert {row[ENGINE] for row in rows} == {"zero3"}
    among = [row for row in pairs_across(modes_of("full")).rows if row[ENGINE] == "zero3"]
    assert len(rows) > 2 * len(among)
    seen = {(row["architecture"], row["wrapper"]) for row in rows}
    for family in WIDE["architecture"]:
        able = is_valid({"architecture": family, "wrapper": "compile"}, ZERO3)
        assert ((family, "compile") in seen) == able


def test_nightly_adds_to_the_gate_and_covers_all_pairs_of_what_is_run() -> None:
    modes = (ZERO3, Mode("full", "tp"), Mode("lora", "single"))
    planned = [case for mode in modes for case in cases_of(mode, "nightly", modes)]
    for mode in modes:
        assert set(cases_of(mode, "gate")) <= set(planned)
    whole = measure(modes, planned, across=True)
    assert whole.covered == whole.possible
    assert measure(modes, planned[:1], across=True).covered < whole.covered / 10


def test_row_across_gives_an_axis_that_only_another_engine_has_its_simplest_value() -> None:
    modes = (ZERO3, Mode("full", "single"))
    case = cases_of(Mode("full", "single"), "smoke")[0]
    row = row_across(case, modes)
    assert row["persistence_threshold"] == ZERO3.definition.axes["persistence_threshold"][0]
    assert row[ENGINE] == "single"


def test_nightly_is_a_night_of_a_machine_with_two_cores() -> None:
    planned = [case for mode in MODES for case in cases_of(mode, "nightly")]
    assert len(planned) < 2600
    assert {case.world_size for case in planned} >= set(WORLD_SIZES)
