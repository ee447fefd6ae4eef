"""A tokenizer or processor without its chat template, where that cannot be written."""

from __future__ import annotations

import copy
from typing import Any


def without_template(tokenizer: Any) -> Any:
    """Copy a tokenizer or processor that has a chat template, leaving it out.

    Raises:
        ValueError: it has none.
    """
    held = getattr(tokenizer, "tokenizer", None)
    both = [one for one in (tokenizer, held) if getattr(one, "chat_template", None) is not None]
    if not both:
        raise ValueError("expected a chat template, found none")
    made = copy.copy(tokenizer)
    made.chat_template = None
    if any(one is held for one in both):
        made.tokenizer = copy.copy(held)
        made.tokenizer.chat_template = None
    return made
