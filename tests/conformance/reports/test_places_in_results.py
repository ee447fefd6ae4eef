"""Dated reports name libraries and no machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.add_result import RESULTS, without_places


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('File "/home/me/v/lib/python3.11/site-packages/peft/a.py"', 'File "peft/a.py"'),
        ("(/opt/x/site-packages/peft/a.py)", "(peft/a.py)"),
        ('File \\"/usr/lib/python3.12/json/decoder.py\\"', 'File \\"json/decoder.py\\"'),
        ("found /tmp/out/model.safetensors", "found /tmp/out/model.safetensors"),
        ("/src/repo/fixtures/savers/hf.py", "fixtures/savers/hf.py"),
        ("openat(AT_FDCWD</src/repo>, 'run/a')", "openat(AT_FDCWD<.>, 'run/a')"),
        ("a/b and 1/2", "a/b and 1/2"),
        ("'base: /tmp/saver-conformance-a_1bcdef/bases/llama'", "'base: <run>/bases/llama'"),
        ("/tmp/x/saver-conformance-abcdefgh/case-7/out.\\n", "<run>/case-7/out.\\n"),
    ],
)
def test_without_places_keeps_what_is_the_librarys(text: str, kept: str) -> None:
    assert without_places(text, Path("/src/repo")) == kept


def test_dated_results_name_no_place_of_a_library() -> None:
    reports = [path.read_text() for path in RESULTS.rglob("report.json")]
    assert reports
    assert all(without_places(text) == text for text in reports)
