"""What is told of an exception or of stacks: the cause first, the saver's frames, never ours."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from saver_conformance.processes import traceback_text
from saver_conformance.processes.traceback_text import (
    describe_exception,
    headline,
    of_crash,
    place_in,
    place_of,
    without_suite,
)

SUITE = traceback_text.SUITE


def load(folder: Path, name: str, source: str) -> types.ModuleType:
    """A module in a package of its own, imported."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "saving.py").write_text(source)
    sys.path.insert(0, str(folder))
    try:
        __import__(f"{name}.saving")
    finally:
        sys.path.remove(str(folder))
    return sys.modules[f"{name}.saving"]


def raised(function: Callable[..., object], *arguments: object) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:
        frames = error.__traceback__
        return error.with_traceback(frames and frames.tb_next)  # without this function's
    raise AssertionError("it returned")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no"), "ValueError: no"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("\n   Some tensors\n  more"), "RuntimeError: Some tensors"),
        (AssertionError(), "AssertionError"),
        (UnicodeError("\x1b[2J"), "UnicodeError: \x1b[2J"),
    ],
)
def test_headline_is_the_type_and_the_first_line(error: BaseException, line: str) -> None:
    assert headline(error) == line


def test_headline_of_a_message_that_raises_is_told() -> None:
    class NastyError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert headline(NastyError()).endswith("NastyError: <the exception's message cannot be read>")


def test_description_begins_with_the_exception_and_drops_the_suite(tmp_path: Path) -> None:
    source = "import json\ndef save(a, b, c):\n    inner()\ndef inner():\n    json.loads('{')\n"
    module = load(tmp_path, "tiny_one", source)
    namespace: dict[str, object] = {"saver": module.save}
    code = compile("def call(): saver(1, 2, 3)", f"{SUITE}/rank.py", "exec")
    exec(code, namespace)
    error = raised(namespace["call"])  # type: ignore[arg-type]
    lines = describe_exception(error).splitlines()
    assert lines[0].startswith("json.decoder.JSONDecodeError: Expecting property name")
    assert lines[1].endswith('/tiny_one/saving.py", line 3, in save')
    assert "inner()" in lines[2]
    assert SUITE not in "\n".join(lines)
    # Not where the library raises, but the saver's own line that led there.
    assert place_of(error, module).endswith("tiny_one/saving.py:5 in inner")


def test_place_without_a_frame_of_the_saver_is_the_innermost(tmp_path: Path) -> None:
    module = load(tmp_path, "tiny_two", "")
    error = raised(json.loads, "{")
    assert " in raw_decode" in place_of(error, None)
    assert place_of(error, module) == place_of(error, None)


def test_description_tells_causes_and_members_of_groups() -> None:
    def chain() -> None:
        try:
            int("x")
        except ValueError as error:
            raise OSError("outer") from error

    text = describe_exception(raised(chain))
    assert text.index("OSError: outer") < text.index("caused by:") < text.index("ValueError: inv")
    group = describe_exception(ExceptionGroup("several", [KeyError("a"), TypeError("b")]))
    assert "one of them:\nKeyError: 'a'" in group
    assert "TypeError: b" in group


def test_description_of_a_long_message_has_it_whole_behind_the_frames() -> None:
    def fail() -> None:
        raise ValueError("x" * 1000 + "end")

    text = describe_exception(raised(fail))
    first, *rest = text.splitlines()
    assert len(first) < 500
    assert rest[-1].endswith("xend")


def test_description_of_a_recursion_is_short() -> None:
    def dig(depth: int) -> None:
        dig(depth + 1)

    assert len(describe_exception(raised(dig, 0)).splitlines()) < 100


def test_description_of_a_syntax_error_has_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def save(a, b, c)\n    pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        text = describe_exception(raised(__import__, "wrong"))
    finally:
        sys.path.remove(str(tmp_path))
    assert f"({tmp_path}/wrong.py, line 1)" in text
    assert "def save(a, b, c)" in text


STACKS = f"""Thread 0x00007f16 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait

Current thread 0x00007f17 (most recent call first):
  File "/opt/env/lib/python3.11/site-packages/torch/_ops.py", line 882 in redispatch
  File "/home/me/mine/saving.py", line 12 in write
  File "/home/me/mine/saving.py", line 7 in save
  File "{SUITE}/rank.py", line 200 in _save
  File "<frozen runpy>", line 88 in _run_code

Extension modules: numpy._core, torch._C (total: 2)
"""


def test_place_in_stacks_is_the_innermost_frame_that_is_no_library() -> None:
    assert place_in(STACKS).endswith("/mine/saving.py:12 in write")
    assert place_in("") == place_in("Current thread 0x1 (most recent call first):\n") == ""


def test_stacks_begin_with_the_thread_that_saves_and_drop_the_suite() -> None:
    text = without_suite(STACKS)
    assert text.startswith("Current thread")
    assert "threading.py" in text
    for part in (SUITE, "runpy", "Extension modules"):
        assert part not in text


def test_crash_is_told_by_the_thread_that_it_met() -> None:
    text = of_crash(f"Fatal Python error: Segmentation fault\n\n{STACKS}")
    assert text.startswith("Fatal Python error: Segmentation fault\nCurrent thread")
    assert "mine/saving.py" in text
    assert "threading.py" not in text
