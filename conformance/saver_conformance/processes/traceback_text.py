"""Exceptions and stacks of a saver as text: what went wrong first, and the saver's frames kept.

Frames of the suite, which say nothing about the saver, are left out. A place is the innermost frame
that is the saver's own: in the package of its function or, for stacks of which no more is known,
outside of Python's own library and of installed packages.
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

SUITE = str(Path(__file__).parent)
"""The folder of this package."""
MAX_LINES = 80
"""Lines of one exception's frames that are told, from both ends."""
MAX_HEADLINE = 400
"""Characters of an exception's first line that stand before its frames; all follow them."""
MAX_DEPTH = 5
"""Exceptions that are told: the one that was raised, its causes, and members of groups."""

_STDLIB = sysconfig.get_path("stdlib")
_PACKAGES = re.compile(r"/(?:site|dist)-packages/")
_LIBRARY_PATH = re.compile(
    rf'File "(?:[^"]*/(?:site|dist)-packages/|{re.escape(_STDLIB)}/(?!(?:site|dist)-packages))'
)
_IMPORTLIB = str(Path(importlib.__file__).parent)
_SECTION = re.compile(r"\n\s*\n|\n(?=(?:Current t|T)hread 0x)")
_STACK_FRAME = re.compile(r'\s*File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')


def headline(error: BaseException) -> str:
    """The exception's type and the first line of its message that is not empty."""
    kind = type(error)
    home = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    lines = [line.strip() for line in _message(error).splitlines() if line.strip()]
    text = f"{home}{kind.__qualname__}" + (f": {lines[0]}" if lines else "")
    return text if len(text) <= MAX_HEADLINE else f"{text[:MAX_HEADLINE]}..."


def describe_exception(error: BaseException) -> str:
    """The headline, the frames without the suite's, the rest of the message, and the causes."""
    return "\n".join(_describe(error, MAX_DEPTH))


def place_of(error: BaseException, saver: ModuleType | None) -> str:
    """The innermost frame in the package of ``saver``, or else the innermost of all, in words."""
    frames = _frames(error)
    folders = _folders(saver) if saver else ()
    own = [item for item in frames if item.filename.startswith(folders)] if folders else []
    for item in reversed(own or frames):
        return _place(item.filename, item.lineno or 0, item.name)
    return ""


def without_suite(stacks: str) -> str:
    """What the fault handler wrote, without frames of the suite and the list of C extensions.

    The thread that the saver runs in comes first.
    """
    threads = [part for part in _SECTION.split(stacks) if part.strip()]
    threads.sort(key=lambda part: not (_has_saver(part) or part.startswith("Fatal")))
    lines = [line for thread in threads for line in thread.splitlines()]
    kept = (line for line in lines if not (line.startswith("Extension") or _is_harness(line)))
    return "\n".join(map(_shorten, kept)).strip()


def of_crash(stacks: str) -> str:
    """What the fault handler wrote of a crash: its name, and the stack of the thread it met."""
    parts = [part for part in _SECTION.split(stacks) if part.startswith(("Fatal", "Current"))]
    return without_suite("\n".join(part.strip() for part in parts))


def place_in(stacks: str) -> str:
    """The innermost frame of the thread that the saver runs in, in words; empty if none is its own.

    Args:
        stacks: what the fault handler wrote, innermost frames first, the suite's frames included.
    """
    for thread in filter(_has_saver, _SECTION.split(stacks)):
        for frame in filter(None, map(_STACK_FRAME.match, thread.splitlines())):
            if not (_is_library(frame["file"]) or _is_harness(frame.group())):
                return _place(frame["file"], int(frame["line"]), frame["name"])
    return ""


def _describe(error: BaseException, depth: int) -> Iterator[str]:
    told = headline(error)
    yield told
    frames = [line for item in _frames(error) for line in _format(item)]
    if len(frames) > MAX_LINES:
        left_out = f"  ... {len(frames) - MAX_LINES} lines ..."
        frames = [*frames[: MAX_LINES // 2], left_out, *frames[-MAX_LINES // 2 :]]
    yield from frames
    lines = [line.strip() for line in _message(error).splitlines() if line.strip()]
    yield from (f"  {line}" for line in (lines if told.endswith("...") else lines[1:]))
    notes: Sequence[str] = getattr(error, "__notes__", ())
    yield from (f"  {note}" for note in notes)
    if depth <= 1:
        return
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for member in members:
        yield "one of them:"
        yield from _describe(member, depth - 1)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield "caused by:" if error.__cause__ else "raised while this was handled:"
        yield from _describe(cause, depth - 1)


def _message(error: BaseException) -> str:
    """The message as a traceback has it; asking for it runs code of whoever raised."""
    try:
        if isinstance(error, SyntaxError):
            where = f" ({error.filename}, line {error.lineno})" if error.filename else ""
            source = f"\n{error.text.strip()}" if error.text else ""
            return f"{error.msg}{where}{source}"
        return str(error)
    except Exception:
        return "<the exception's message cannot be read>"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames from the saver's function on, outermost first."""
    every = traceback.extract_tb(error.__traceback__)
    frames = [item for item in every if not item.filename.startswith("<frozen importlib")]
    while frames and frames[0].filename.startswith((f"{SUITE}/", f"{_IMPORTLIB}/")):
        frames.pop(0)
    return frames


def _format(frame: traceback.FrameSummary) -> Iterator[str]:
    yield _shorten(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
    if frame.line:
        yield f"    {frame.line}"


def _folders(saver: ModuleType) -> tuple[str, ...]:
    """Where the code of the saver's package lies: its folders, or its one file."""
    package = sys.modules.get(saver.__name__.partition(".")[0], saver)
    if paths := getattr(package, "__path__", None):
        return tuple(f"{path}/" for path in paths)
    file = getattr(package, "__file__", None)
    return (str(file),) if file else ()


def _place(file: str, line: int, name: str) -> str:
    """A frame in words, with the file's path as short as it is clear: below an import folder."""
    roots = [root for root in (*sys.path, str(Path.cwd())) if root and file.startswith(f"{root}/")]
    short = file[len(max(roots, key=len)) + 1 :] if roots else file
    return f"{short}:{line} in {name}"


def _has_saver(thread: str) -> bool:
    """Whether a thread is the one that answers requests, and so calls the saver."""
    return any(map(_is_harness, thread.splitlines()))


def _is_harness(line: str) -> bool:
    return f'File "{SUITE}/' in line or 'File "<frozen runpy>"' in line


def _is_library(file: str) -> bool:
    return file.startswith((f"{_STDLIB}/", "<")) or _PACKAGES.search(file) is not None


def _shorten(line: str) -> str:
    """``line`` with a library's path from its package on; of the saver's files all is told."""
    return _LIBRARY_PATH.sub('File "', line)
