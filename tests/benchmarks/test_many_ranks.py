"""Saves on many ranks, measured with few and small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.many_ranks import PEER, REFERENCE, measure


def test_measure_gives_each_round_of_both_ways(tmp_path: Path) -> None:
    (found,) = measure(tmp_path, counts=(2,), rounds=2, layers=1)
    assert found["ranks"] == 2
    assert found["bytes"] > 0
    assert {name: len(all_of) for name, all_of in found["seconds"].items()} == {
        REFERENCE: 2,
        PEER: 2,
    }
    assert all(one > 0 for all_of in found["seconds"].values() for one in all_of)
    assert (tmp_path / "ranks2" / f"{REFERENCE}2" / "model.safetensors").is_file()


def test_measure_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ranks2").mkdir()
    with pytest.raises(RuntimeError, match="2 ranks"):
        measure(tmp_path, counts=(2,), rounds=1, layers=1)
