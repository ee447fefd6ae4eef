"""The page of the matrix is made of reports."""

from __future__ import annotations

from typing import Any

from fixtures.readers_page import _short, make_page


def reading(reader: str, saved: str, **values: Any) -> dict[str, Any]:
    plain = {"mode": "full-single", "architecture": "llama", "reader": reader, "saved": saved}
    plain |= {"versions": {reader: "1"}, "unavailable": "", "plain": saved, "seconds": 0.25}
    return {**plain, "faults": [], **values}


def folder(kind: str, name: str, outcome: str, **values: Any) -> dict[str, Any]:
    part = {"name": "scores", "outcome": outcome, "found": f"{name} {outcome}"}
    one = {"reader": "good", "outcome": outcome, "parts": [part], "versions": {"good": "1"}}
    return {"kind": kind, "name": name, "readers": [{**one, "seconds": 0.25}], **values}


FOLDERS = [
    folder("portable", "llama", "right"),
    folder("plain", "llama", "wrong"),
    folder("portable", "qwen2", "right"),
    folder("plain", "qwen2", "right"),
    folder("mutant", "has_two", "refused", breaks=["FILES-001", "PORTABLE-002"]),
]


def test_page_has_the_folders_of_families_and_of_mutants() -> None:
    page = make_page(FOLDERS, [], "2026-01-02")
    assert "| llama | right / **wrong** |" in page
    assert "| qwen2 | right |" in page
    assert "| has two | PORTABLE-002 | refused |" in page
    assert "| good | refused | has_two refused | has two |" in page
    assert "llama wrong" not in page


def test_page_has_a_table_for_each_saver_with_versions_and_reasons() -> None:
    fault = {"part": "scores", "outcome": "wrong", "expected": "x", "found": "off by 8 | 9"}
    readings = [
        reading("good", "right"),
        reading("bad", "wrong", faults=[{**fault, "also_plain": True}]),
        reading("absent", "unavailable", unavailable="not installed", versions={}),
    ]
    page = make_page(FOLDERS, [{"saver": "ours", "readings": readings}], "2026-01-02")
    assert "measured on 2026-01-02" in page
    assert "## Whole models of ours" in page
    assert "| good | right |" in page
    assert "| bad | **wrong** |" in page
    assert "| absent | not run |" in page
    assert "| good | good 1 | 0.25 |" in page
    assert r"| bad | scores | wrong | off by 8 \| 9 | also of a plain save: ours |" in page


def test_page_names_no_folder_of_the_machine() -> None:
    assert (
        _short("not found: /home/somebody/report/tokenizer.model") == "not found: tokenizer.model"
    )
    assert _short("see https://example.org/a/b and 1/2") == "see https://example.org/a/b and 1/2"
