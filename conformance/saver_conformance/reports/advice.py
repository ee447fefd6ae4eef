"""What usually causes a breach of each clause, and how to fix it; ``advice.md`` is the source."""

from __future__ import annotations

import re
from importlib import resources
from types import MappingProxyType

_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def _read() -> dict[str, str]:
    page = resources.files(__package__).joinpath("advice.md").read_text(encoding="utf-8")
    sections = re.split(r"^### (\S+)$", page, flags=re.MULTILINE)[1:]
    return {
        clause: " ".join(_LINK.sub(r"\1", text.partition("\n## ")[0]).split())
        for clause, text in zip(sections[::2], sections[1::2], strict=True)
    }


ADVICE = MappingProxyType(_read())
"""A paragraph for each clause, by its id; code is between backticks."""
