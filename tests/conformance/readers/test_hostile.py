"""Readers of one's own that are wrong, and folders with nothing to compare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.conformance.readers.test_read import PROGRAM, call, make_folder

from saver_conformance.cases.case import Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.execution.case_readers import choose_cases
from saver_conformance.readers import environment
from saver_conformance.readers.question import Answer, ask_about
from saver_conformance.readers.reader import ReaderError, read_reader
from saver_conformance.readers.session import Session
from saver_conformance.readers.worker import Worker


def program(tmp_path: Path, old: str, new: str) -> Path:
    made = tmp_path / "own.py"
    text = PROGRAM.read_text()
    assert old in text
    made.write_text(text.replace(old, new))
    return made


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"plain"', '"../../x"', "name is '../../x'"),
        ("fast = true", 'tolerance = "big"', "expected a number above 0"),
        ("fast = true", "limit = -1", "expected a number above 0"),
        ("fast = true", "tolerance = nan", "expected a number above 0"),
        ("fast = true", "fast = 1", "expected true or false"),
        ("fast = true", 'install = "torch"', "expected a list of strings"),
        ("fast = true", "variables = { A = 1 }", "expected a table of strings"),
        ('gives = ["tokens", "chat", "digests"]', 'gives = "tokens"', "expected a list"),
    ],
)
def test_program_with_a_field_of_another_type_is_no_reader(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ReaderError, match=re.escape(said)):
        read_reader(program(tmp_path, old, new))


def test_program_that_is_no_text_is_no_reader(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_bytes(b"\xff\xfe")
    assert call("read", str(make_folder(tmp_path / "a")), "--reader", str(own)) == 3


def test_reader_whose_library_prints_is_read(tmp_path: Path) -> None:
    own = program(tmp_path, "import hashlib", 'print("loading ..."); print("[1]"); import hashlib')
    with Worker(read_reader(own)) as worker:
        assert worker.ask(ask_about(make_folder(tmp_path / "a"))).has("digests")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tokens", 5),
        ("tokens", [["a"]]),
        ("chat", {}),
        ("scores", [["a"]]),
        ("scores", [{"a": 1.0}]),
        ("chat_scores", "abc"),
        ("digests", [1]),
        ("digests", {"a": 1}),
    ],
)
def test_answer_of_another_form_is_an_error_of_that_part(part: str, value: object) -> None:
    answer = Answer.from_plain({part: value, "seconds": "soon", "errors": None}, "logits")
    assert list(answer.errors) == [part]
    assert getattr(answer, part) is None


def test_reader_whose_interpreter_is_gone_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path / "home"))
    own = read_reader(program(tmp_path, "# [tool", '# dependencies = ["a==1"]\n# [tool'))
    place = environment.place_of(own)
    place.mkdir(parents=True)
    (place / environment.MARKER).write_text('{"seconds": 1}')
    with Session([own]) as session:
        why = session.ask(own, ask_about(make_folder(tmp_path / "a")))
    assert isinstance(why, str)
    assert "install it again" in why


def test_environment_where_nothing_can_be_written_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path / "file" / "home"))
    assert call("readers", "install", "tokenizers") == 2


def test_folder_without_weights_is_not_right(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    assert call("read", str(folder), "--reader", str(PROGRAM)) == 2


def test_command_read_without_an_installed_reader_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path / "none"))
    assert call("read", str(make_folder(tmp_path / "a"))) == 3
    assert "no reader is installed" in capsys.readouterr().err


def test_cases_whose_folders_bring_code_are_read_by_nobody() -> None:
    mode = Mode.parse("full-single")
    planned = [make_case(mode, {"architecture": name}) for name in ("remote-code", "llama")]
    assert {case.architecture for case in choose_cases(planned)} == {"llama"}
