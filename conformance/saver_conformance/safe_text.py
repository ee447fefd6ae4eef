"""Values of untrusted files as text for people: short, and without an effect on a terminal."""

from __future__ import annotations

import reprlib
from typing import Any

MAX_CHARACTERS = 2000

_repr = reprlib.Repr()
_repr.maxlevel = 4
_repr.maxdict = _repr.maxlist = _repr.maxtuple = 20
_repr.maxstring = _repr.maxother = _repr.maxlong = 200


def quoted(value: Any) -> str:
    """The ``repr`` of ``value``, however large or deep it is, with its middle left out."""
    return _repr.repr(value)


def printable(text: str) -> str:
    """``text`` with escapes for what does not print, and the rest left out when it is long."""
    cut = text[:MAX_CHARACTERS]
    # Half surrogate pairs, which JSON can name, cannot be printed either.
    clean = cut if cut.isprintable() else "".join(map(_escaped, cut))
    return clean if len(cut) == len(text) else f"{clean}... {len(text)} characters"


def excerpt(text: str, lines: int) -> str:
    """``text`` as ``lines`` printable lines; the ends of a traceback say most, its middle goes."""
    split = [printable(line) for line in text.splitlines()]
    if len(split) <= lines:
        return "\n".join(split)
    half = lines // 2
    left_out = f"... {len(split) - 2 * half} lines ..."
    return "\n".join([*split[:half], left_out, *split[-half:]])


def count(number: int, noun: str) -> str:
    """``number`` things of the name ``noun``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _escaped(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
