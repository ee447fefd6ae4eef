"""The rates of digests and copies."""

from __future__ import annotations

from benchmarks.replicas import measure


def test_measure_gives_positive_rates_and_their_ratio() -> None:
    found = measure(size=2**16, rounds=1)
    assert min(found.digest, found.copy) > 0
    assert found.ratio > 0
