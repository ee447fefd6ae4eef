"""What readers cost is told from reports, and is above its limits or not."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.readers_cost import cost_of, describe, most


def report(seconds: float, folder: float, serve: float = 20.0) -> dict[str, Any]:
    readings = [{"reader": name, "seconds": folder} for name in 2 * ("quick", "slow")]
    steps = {"single": {"train": 5.0, "serve": serve}, "ddp": {"train": 5.0}}
    return {"readings": readings, "seconds_by_step": steps, "totals": {"seconds": seconds}}


def test_cost_of_reports_is_the_step_of_reading_as_two_cases_at_once_take_it() -> None:
    cost = cost_of([report(50.0, 0.5), report(50.0, 0.7)], [], gate=10)
    assert (cost.folders, cost.added, cost.added_to_gate) == (4, 20.0, 50.0)
    assert list(cost.faults(["quick"])) == []
    told = "quick            0.60 s a folder, 9 in 10 within 0.70 s, all 0.70 s; 4 folders"
    assert told in describe(cost)


def test_longest_folder_in_ten_is_not_held_against_a_reader() -> None:
    assert most([0.1] * 9 + [3.0]) == 0.1
    assert most([0.1] * 8 + [3.0, 3.0]) == 3.0
    assert most([3.0]) == 3.0


def test_cost_beside_runs_without_readers_is_that_of_whole_runs() -> None:
    cost = cost_of([report(50.0, 0.5)], [report(30.0, 0.0)], gate=4)
    assert (cost.added, cost.added_to_gate) == (20.0, 40.0)


def test_fast_reader_above_a_second_and_a_gate_above_three_minutes_are_faults() -> None:
    cost = cost_of([report(50.0, 1.2, serve=80.0)], [], gate=10)
    first, second = cost.faults(["quick", "absent"])
    assert first == "quick took 1.20 s for a folder; fast is at most 1 s"
    assert second == "the gate takes 200 s longer; expected 180 at most"


def test_reports_without_readers_have_no_cost() -> None:
    with pytest.raises(ValueError, match="expected reports of runs with --readers"):
        cost_of([report(50.0, 0.5) | {"readings": []}], [], gate=1)
