"""How mappings differ, in words that name the items."""

from __future__ import annotations

import pytest

from saver_conformance.observation.mapping_diff import describe_difference


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({}, {}, ""),
        ({"a": 1, "b": 2}, {"a": 1}, "1 token missing: 'b'"),
        ({"a": 1}, {"a": 1, "<other>": 24}, "1 token besides: '<other>' (24)"),
        ({"a": 1}, {"a": 2}, "1 token with another value: 'a' (2 instead of 1)"),
        ({"a": 1}, {"b": 1}, "1 token missing: 'a'; 1 token besides: 'b' (1)"),
    ],
)
def test_difference_is_named(expected: dict[str, int], found: dict[str, int], words: str) -> None:
    assert describe_difference(expected, found, "token") == words


def test_difference_of_many_items_is_short() -> None:
    told = describe_difference({f"w{number}": number for number in range(50_000)}, {}, "token")
    assert told == "50000 tokens missing: 'w0', 'w1', 'w2', ..."
