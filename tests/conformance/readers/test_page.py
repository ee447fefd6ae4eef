"""The page of the matrix is made of reports."""

from __future__ import annotations

from typing import Any

from fixtures.readers_page import make_page


def reading(reader: str, saved: str, **values: Any) -> dict[str, Any]:
    plain = {"mode": "full-single", "architecture": "llama", "reader": reader, "saved": saved}
    plain |= {"versions": {reader: "1"}, "unavailable": "", "plain": saved, "seconds": 0.25}
    return {**plain, "faults": [], **values}


def test_page_has_a_table_for_each_saver_with_versions_and_reasons() -> None:
    fault = {"part": "scores", "outcome": "wrong", "expected": "x", "found": "off by 8 | 9"}
    readings = [
        reading("good", "right"),
        reading("bad", "wrong", faults=[{**fault, "also_plain": True}]),
        reading("absent", "unavailable", unavailable="not installed", versions={}),
    ]
    page = make_page([{"saver": "ours", "readings": readings}], "2026-01-02")
    assert "measured on 2026-01-02" in page
    assert "## Whole models of ours" in page
    assert "| good | right |" in page
    assert "| bad | **wrong** |" in page
    assert "| absent | not run |" in page
    assert "| good | good 1 | 0.25 |" in page
    assert r"| bad | scores | wrong | off by 8 \| 9 | also of a plain save: ours |" in page
