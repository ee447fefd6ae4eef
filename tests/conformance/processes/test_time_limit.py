"""Time limits count less while the machine is busy with other work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saver_conformance.processes import time_limit
from saver_conformance.processes.time_limit import LONGEST, TimeLimit, read_load


class Clock:
    """A clock that a test moves, and a machine with a load that it sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.load = 100.0, 1.0
        monkeypatch.setattr(time_limit.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time_limit, "read_load", lambda: self.load)

    def passes(self, seconds: float, limit: TimeLimit) -> float:
        """What is left after ``seconds``, asked for every half second."""
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            limit.left()
        return limit.left()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_left_counts_down_as_a_clock_on_an_idle_machine(clock: Clock) -> None:
    limit = TimeLimit(30)
    assert clock.passes(20, limit) == pytest.approx(10)
    assert clock.passes(10, limit) == pytest.approx(0)


def test_left_counts_slower_under_load(clock: Clock) -> None:
    limit, clock.load = TimeLimit(30), 4.0
    assert clock.passes(40, limit) == pytest.approx(20)
    clock.load = 1.0
    assert clock.passes(20, limit) == pytest.approx(0)


def test_left_ends_under_any_load(clock: Clock) -> None:
    limit, clock.load = TimeLimit(30), 1000.0
    assert clock.passes(30 * LONGEST, limit) <= 0


def test_shorten_never_lengthens(clock: Clock) -> None:
    limit = TimeLimit(30)
    assert limit.shorten(5)
    assert not limit.shorten(10)
    assert clock.passes(5, limit) == pytest.approx(0)


@pytest.mark.parametrize(
    ("running", "blocked", "load"), [(0, 0, 1), (1, 0, 1), (8, 0, 4), (1, 2, 3), (8, 1, 5)]
)
def test_read_load_counts_who_wants_a_core_and_who_waits_for_a_disk(
    running: int, blocked: int, load: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text(f"cpu 1 2 3\nprocs_running {running}\nprocs_blocked {blocked}\nsoftirq 1\n")
    monkeypatch.setattr(time_limit, "_STAT", stat)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert read_load() == load


def test_read_load_is_one_where_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit, "_STAT", tmp_path / "missing")
    assert read_load() == 1
