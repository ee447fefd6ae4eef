"""What a reader is: a program that loads saved folders with somebody's library, and its data.

A reader is one file, a program in Python or JavaScript. Its data stand in its head as inline
metadata (the form of PEP 723), so that nothing of it is imported before it runs, and it imports
nothing of the suite::

    # /// script
    # dependencies = ["tokenizers==0.22.1"]
    #
    # [tool.saver-conformance]
    # name = "tokenizers"
    # text = "the tokenizers library, which takes tokenizer.json as it is"
    # gives = ["tokens"]
    # ///
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

Part = Literal["tokens", "chat", "scores", "chat_scores", "digests"]

PARTS: tuple[Part, ...] = ("tokens", "chat", "scores", "chat_scores", "digests")
"""What can be asked; ``worker_path/reader_worker.py`` says what each is."""

_BLOCK = re.compile(r"^(?://|#) /// script\n(?P<body>(?:^(?://|#).*\n)+?)^(?://|#) ///$", re.M)
_COMMENT = re.compile(r"^(?://|#) ?", re.M)
_TABLE = "saver-conformance"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NUMBERS = ("tolerance", "limit")
_TEXTS = ("text", "python", "tolerance_reason")


class ReaderError(ValueError):
    """A file is no reader; the message says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader.

    Attributes:
        name: what it is called on the command line.
        program: the file.
        text: a few words for people.
        dependencies: requirements of its environment, or packages of npm for a ``.mjs`` program;
            empty for a program that the suite's own interpreter runs as it is.
        install: requirements that are installed first, one command each: what the build of a later
            one, or its choice of a platform, depends on.
        no_deps: requirements that are installed last and without what they depend on.
        sources: source packages that are unpacked beside the environment; the program finds them
            in the folder that ``READER_SOURCES`` names.
        uninstall: packages that are taken out again.
        python: the version of Python that it needs, such as ``3.11``; empty for the suite's.
        variables: environment variables that it runs with.
        gives: the parts that it can be asked for.
        models: the ``model_type`` values that it reads; empty for what its library knows.
        dtypes: the dtypes that it reads.
        adapters: the kinds of adapters that it reads, such as ``lora``, ``dora``,
            ``modules_to_save``.
        tolerance: how far its scores may be from the right ones, at most, in units of the scores.
        tolerance_reason: why it is not smaller.
        fast: whether a folder takes it less than a second once it has started.
        limit: seconds after which a folder counts as not answered.
        place: where it stands in lists, the first being what others are compared with.
    """

    name: str
    program: Path
    text: str
    dependencies: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    no_deps: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    uninstall: tuple[str, ...] = ()
    python: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    gives: tuple[Part, ...] = ()
    models: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    adapters: tuple[str, ...] = ()
    tolerance: float = 1e-4
    tolerance_reason: str = "float32 arithmetic in another order"
    fast: bool = False
    limit: float = 120.0
    place: int = 50

    @property
    def is_python(self) -> bool:
        """Whether Python runs it; Node does otherwise."""
        return self.program.suffix == ".py"

    @property
    def has_environment(self) -> bool:
        """Whether it needs an environment of its own."""
        return bool(self.dependencies or self.install or self.no_deps or self.sources)


def read_reader(program: Path) -> Reader:
    """The reader whose program this is.

    Raises:
        ReaderError: its metadata are missing or have another form than ``Reader`` describes.
    """
    try:
        text = program.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReaderError(f"{program} cannot be read: {error}") from error
    found = _BLOCK.search(text)
    if found is None:
        raise ReaderError(f"{program}: expected inline metadata, '# /// script' to '# ///'")
    try:
        data = tomllib.loads(_COMMENT.sub("", found["body"]))
    except tomllib.TOMLDecodeError as error:
        raise ReaderError(f"{program}: the inline metadata are no TOML: {error}") from error
    own = data.get("tool", {}).get(_TABLE)
    if not isinstance(own, dict):
        raise ReaderError(f"{program}: expected a table [tool.{_TABLE}] in the inline metadata")
    known = {field.name for field in fields(Reader)} - {"program", "dependencies"}
    if unknown := sorted(set(own) - known):
        raise ReaderError(f"{program}: [tool.{_TABLE}] has no field {unknown[0]}")
    if lacking := {"name", "text", "gives"} - set(own):
        raise ReaderError(f"{program}: [tool.{_TABLE}] lacks {sorted(lacking)[0]}")
    plain = {"dependencies": data.get("dependencies", []), **own}
    for name, value in plain.items():
        if wanted := _wanted(name, value):
            raise ReaderError(f"{program}: {name} is {value!r}, expected {wanted}")
    if strange := sorted(set(own["gives"]) - set(PARTS)):
        raise ReaderError(f"{program}: gives names {strange[0]!r}, which is none of {PARTS}")
    return Reader(program=program, **_frozen(plain))


def _wanted(name: str, value: Any) -> str:
    """What a field's value should be; empty where it is that."""
    if name == "name":  # a folder is called by it
        fits = isinstance(value, str) and _NAME.fullmatch(value) is not None
        return "" if fits else "letters, digits and any of . _ + - after the first"
    if name in _NUMBERS:
        fits = type(value) in (int, float) and value > 0
        return "" if fits else "a number above 0"
    if name == "place":
        return "" if type(value) is int else "a whole number"
    if name == "fast":
        return "" if isinstance(value, bool) else "true or false"
    if name == "variables":
        fits = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
        return "" if fits else "a table of strings"
    if name in _TEXTS:
        return "" if isinstance(value, str) else "a string"
    fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return "" if fits else "a list of strings"


def _frozen(plain: dict[str, Any]) -> dict[str, Any]:
    frozen = {
        key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
    }
    if "variables" in plain:
        frozen["variables"] = tuple(sorted(plain["variables"].items()))
    return frozen
