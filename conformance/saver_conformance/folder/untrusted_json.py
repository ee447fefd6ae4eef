"""JSON whose author is not trusted: what is ambiguous or out of proportion is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from saver_conformance.safe_text import quoted

MAX_VALUES = 10_000_000
"""A million tensors in one file; a short text can ask for many times its length in objects."""

_MAX_FLOAT_DIGITS = 1000


class UntrustedJsonError(ValueError):
    """A text is refused.

    Attributes:
        reason: what is wrong with the text, to stand after its name.
        offset: where in the text, in bytes.
    """

    def __init__(self, reason: str, offset: int = 0) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(f"{reason} (at byte {offset})")


def parse_object(text: bytes, *, constants: bool = False) -> dict[str, Any]:
    """The object that ``text`` holds.

    Args:
        text: UTF-8.
        constants: whether ``NaN`` and ``Infinity`` are values, as they are to Python's ``json``.

    Raises:
        UntrustedJsonError: the text is no JSON, no object, names a key of an object twice, or
            holds more values than ``MAX_VALUES``.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise UntrustedJsonError(f"holds more than {MAX_VALUES} values")
    try:
        decoded = text.decode()
        plain = json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_constant=float if constants else _constant,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise UntrustedJsonError(f"is not UTF-8: {error.reason}", error.start) from error
    except json.JSONDecodeError as error:
        offset = len(decoded[: error.pos].encode())
        raise UntrustedJsonError(f"is not JSON: {error.msg}", offset) from error
    except UntrustedJsonError:
        raise
    except (ValueError, RecursionError) as error:
        # Integers of thousands of digits, and nesting deeper than the interpreter's stack.
        raise UntrustedJsonError(f"cannot be parsed: {error}") from error
    if not isinstance(plain, dict):
        raise UntrustedJsonError(f"holds a {type(plain).__name__}, expected an object")
    return plain


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UntrustedJsonError(
                    f"is ambiguous: the key {quoted(key)} occurs twice in an object"
                )
            seen.add(key)
    return plain


def _constant(name: str) -> NoReturn:
    raise UntrustedJsonError(f"is not JSON: {name} is no value of it")


def _float(text: str) -> float:
    if len(text) > _MAX_FLOAT_DIGITS:
        raise UntrustedJsonError(f"holds a number of {len(text)} digits")
    return float(text)
