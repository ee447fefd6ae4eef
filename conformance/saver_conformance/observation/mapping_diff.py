"""How two mappings differ, in a few words: vocabularies, special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saver_conformance.safe_text import count, quoted

SHOWN_ITEMS = 3
"""Items of each kind that are named."""


def describe_difference(expected: Mapping[str, Any], found: Mapping[str, Any], noun: str) -> str:
    """Which items are missing, are there besides, or have another value; empty when none is.

    Args:
        expected: what should be there.
        found: what is there.
        noun: what an item is called.
    """
    missing = [quoted(key) for key in expected if key not in found]
    extra = [f"{quoted(key)} ({quoted(found[key])})" for key in found if key not in expected]
    other = [
        f"{quoted(key)} ({quoted(found[key])} instead of {quoted(expected[key])})"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    parts = (("missing", missing), ("besides", extra), ("with another value", other))
    return "; ".join(
        f"{count(len(items), noun)} {what}: {_some(items)}" for what, items in parts if items
    )


def _some(items: Sequence[str]) -> str:
    more = ", ..." if len(items) > SHOWN_ITEMS else ""
    return ", ".join(items[:SHOWN_ITEMS]) + more
