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
        OSError: the file cannot be read.
    """
    found = _BLOCK.search(program.read_text(encoding="utf-8"))
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
    if strange := sorted(set(own["gives"]) - set(PARTS)):
        raise ReaderError(f"{program}: gives names {strange[0]!r}, which is none of {PARTS}")
    return Reader(program=program, dependencies=_strings(data.get("dependencies")), **_frozen(own))


def _frozen(own: dict[str, Any]) -> dict[str, Any]:
    frozen = {
        key: _strings(value) if isinstance(value, list) else value for key, value in own.items()
    }
    if "variables" in own:
        frozen["variables"] = tuple(sorted(own["variables"].items()))
    return frozen


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())
