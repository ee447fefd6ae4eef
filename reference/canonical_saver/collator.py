"""The tokenizer or processor that a data collator holds, where the trainer has none itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from inspect import getclosurevars
from types import FunctionType, MethodType
from typing import Any

_NAMES = ("processing_class", "processor", "tokenizer", "feature_extractor", "image_processor")
"""What collators call it: transformers' ``tokenizer``, TRL's ``processor``. What holds the others
comes first."""
_WRAPPED = ("data_collator", "collator", "collate_fn")
"""What collators call another collator that they call."""


def tokenizer_of(collator: Any) -> Any:
    """Find what a trainer's data collator prepares the inputs with.

    Args:
        collator: an object, a method or a ``functools.partial``, or one around another one.

    Returns:
        The tokenizer or processor; None if there is none that can be saved.
    """
    for place in _places(collator, set()):
        for name in _NAMES:
            found = place.get(name) if isinstance(place, dict) else getattr(place, name, None)
            if callable(getattr(found, "save_pretrained", None)):
                return found
    return None


def _places(collator: Any, seen: set[int]) -> Iterator[Any]:
    """All that may have it as an attribute, an argument, or a variable that a function reads."""
    if collator is None or id(collator) in seen:
        return
    seen.add(id(collator))
    yield collator
    if isinstance(collator, partial):
        yield collator.keywords
        yield from _places(collator.func, seen)
    elif isinstance(collator, MethodType):
        yield from _places(collator.__self__, seen)
    elif isinstance(collator, FunctionType):
        yield _defaults(collator)
        with suppress(ValueError):  # a variable around it has no value
            outside = getclosurevars(collator)
            yield {**outside.globals, **outside.nonlocals}
    else:
        for name in _WRAPPED:
            yield from _places(getattr(collator, name, None), seen)


def _defaults(function: FunctionType) -> dict[str, Any]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    return dict(zip(names[len(names) - len(values) :], values, strict=True)) | (
        function.__kwdefaults__ or {}
    )
