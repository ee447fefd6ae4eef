"""The tokenizer that a data collator reads which is a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.reference.crash.scenarios import new_tokenizer

from canonical_saver.collator import tokenizer_of

tokenizer = new_tokenizer()


def with_a_global(batch: Any) -> Any:
    return tokenizer(batch)


def with_a_default(batch: Any, size: int = 3, tokenizer: Any = tokenizer) -> Any:
    return tokenizer(batch), size


def with_a_keyword(batch: Any, *, tokenizer: Any = tokenizer) -> Any:
    return tokenizer(batch)


def made() -> Callable[[Any], Any]:
    processor = tokenizer

    def collate(batch: Any) -> Any:
        return processor(batch)

    return collate


@pytest.mark.parametrize("collator", [with_a_global, with_a_default, with_a_keyword, made()])
def test_tokenizer_of_a_function_finds_what_it_reads(collator: Callable[[Any], Any]) -> None:
    assert tokenizer_of(collator) is tokenizer


def test_tokenizer_of_a_function_without_one_is_none() -> None:
    assert tokenizer_of(lambda batch: list(batch)) is None


def emptied() -> Callable[[Any], Any]:
    """A function around which a variable has lost its value."""
    processor = tokenizer

    def collate(batch: Any, tokenizer: Any = tokenizer) -> Any:
        return processor(batch), tokenizer

    assert collate.__closure__ is not None
    del collate.__closure__[0].cell_contents
    return collate


def test_tokenizer_of_a_function_with_an_empty_variable_is_found_elsewhere() -> None:
    assert tokenizer_of(emptied()) is tokenizer
