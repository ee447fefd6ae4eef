"""A tokenizer or processor, without its chat template where that cannot be written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from canonical_saver.publishing.best_effort import BestEffort


def write_tokenizer(tokenizer: Any, staged: BestEffort) -> None:
    """Write a tokenizer or processor as usual, as far as that is possible."""

    def usual(folder: Path) -> None:
        _expect_file_names(tokenizer)
        tokenizer.save_pretrained(folder)

    if wrong := staged.attempt(usual, beside=type(tokenizer).__name__):
        _write_without(tokenizer, wrong, staged)


def _write_without(tokenizer: Any, wrong: str, staged: BestEffort) -> None:
    """Write a tokenizer or processor without its chat template, or else nothing of it.

    Args:
        tokenizer: the tokenizer or processor, which stays as it is.
        wrong: what went wrong with all of it.
        staged: where to; gets the warning.
    """
    kind = type(tokenizer).__name__
    again = "; then write it by its save_pretrained(FOLDER)"
    without = staged.attempt(
        lambda folder: without_template(tokenizer).save_pretrained(folder), beside=kind
    )
    if without:
        staged.warnings.append(
            f"{kind} was left out, it cannot be written: {wrong}; correct it{again}"
        )
    else:
        staged.warnings.append(
            f"{kind} was written without its chat template, which is not valid: {wrong}; correct "
            f"chat_template{again}"
        )


def _expect_file_names(tokenizer: Any) -> None:
    """Expect that each chat template can be a file of its folder.

    Not every version of transformers does: a name with ``..`` in it is then written elsewhere.

    Raises:
        ValueError: a name leads into another folder.
    """
    for one in _holders(tokenizer):
        names = one.chat_template if isinstance(one.chat_template, dict) else ()
        for name in names:
            if PurePath(f"{name}.jinja").parts != (f"{name}.jinja",):
                raise ValueError(f"expected a chat template with a name of a file, found {name!r}")


def without_template(tokenizer: Any) -> Any:
    """Copy a tokenizer or processor that has a chat template, leaving it out.

    Raises:
        ValueError: it has none.
    """
    held = getattr(tokenizer, "tokenizer", None)
    both = list(_holders(tokenizer))
    if not both:
        raise ValueError("expected a chat template, found none")
    made = copy.copy(tokenizer)
    made.chat_template = None
    if any(one is held for one in both):
        made.tokenizer = copy.copy(held)
        made.tokenizer.chat_template = None
    return made


def _holders(tokenizer: Any) -> Iterator[Any]:
    """Those that have a chat template: a tokenizer, or a processor and its tokenizer."""
    for one in (tokenizer, getattr(tokenizer, "tokenizer", None)):
        if getattr(one, "chat_template", None) is not None:
            yield one
