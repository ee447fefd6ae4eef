"""A reader whose environment lacks a library says nothing about the folder that it was given."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conformance.readers.test_read import PROGRAM, call, make_folder

from saver_conformance.observation.reading import Comparison, Part, Reading
from saver_conformance.readers.judgement import Standard, judge
from saver_conformance.readers.question import Answer, ask_about
from saver_conformance.readers.reader import Reader, read_reader
from saver_conformance.readers.registry import PROGRAMS
from saver_conformance.readers.session import Session

MISSING = "import a_library_that_is_not_here"
WRAPPED = f"""try:
            {MISSING}
        except ImportError as error:
            raise RuntimeError("failed to import a part") from error"""
TRIED = f"""try:
            {MISSING}
        except ImportError:
            raise ValueError("the folder has no template")"""


def broken(tmp_path: Path, statement: str) -> Reader:
    """A reader whose way to the chat prompt needs what its environment lacks."""
    made = tmp_path / "broken.py"
    found = '"""The prompt of the template."""'
    text = PROGRAM.read_text()
    assert found in text
    made.write_text(text.replace(found, f"{found}\n        {statement}"))
    return read_reader(made)


def outcomes(reader: Reader, folder: Path) -> dict[str, str]:
    with Session([reader]) as session:
        answer = session.ask(reader, ask_about(folder))
    assert isinstance(answer, Answer)
    return {
        part.name: part.outcome for part in judge(reader, answer, Standard(answer, {}), {}).parts
    }


@pytest.mark.parametrize("statement", [MISSING, WRAPPED, "from json import nothing_of_this_name"])
def test_part_whose_library_cannot_be_imported_is_unavailable(
    statement: str, tmp_path: Path
) -> None:
    found = outcomes(broken(tmp_path, statement), make_folder(tmp_path / "a"))
    assert found == {"tokens": "right", "chat": "unavailable", "digests": "right"}


def test_error_of_the_folder_after_a_library_was_tried_is_a_refusal(tmp_path: Path) -> None:
    found = outcomes(broken(tmp_path, TRIED), make_folder(tmp_path / "a"))
    assert found["chat"] == "refused"


def test_error_after_a_failed_import_is_no_refusal(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"\x08")
    assert outcomes(broken(tmp_path, MISSING), folder)["digests"] == "unavailable"
    assert outcomes(broken(tmp_path, "pass"), folder)["digests"] == "refused"


def test_next_folder_is_read_by_a_process_without_the_failed_import(tmp_path: Path) -> None:
    statement = 'if Path(self.folder).name == "a":\n            sys.modules["kept"] = sys\n'
    reader = broken(tmp_path, f"{statement}            {MISSING}\n        import kept")
    made = reader.program.read_text().replace("import os\n", "import os\nimport sys\n")
    made = made.replace("import kept", 'assert "kept" not in sys.modules')
    reader.program.write_text(made)
    with Session([reader]) as session:
        answers = [session.ask(reader, ask_about(make_folder(tmp_path / name))) for name in "ab"]
    first, second = answers
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert "a_library_that_is_not_here" in first.unavailable["chat"]
    assert (second.errors, second.unavailable) == ({}, {})


def test_command_read_with_a_broken_reader_is_inconclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = broken(tmp_path, MISSING)
    folder = make_folder(tmp_path / "a")
    assert call("read", str(folder), "--reader", str(reader.program)) == 2
    assert "a_library_that_is_not_here" in capsys.readouterr().out


def test_saver_is_not_accused_of_what_a_reader_has_no_library_for() -> None:
    lacking, right = Part("chat", "unavailable", found="no jinja2"), Part("chat", "right")
    comparison = Comparison(Reading("r", (lacking,)), Reading("r", (right,)))
    assert comparison.faults() == ()
    assert comparison.saved.outcome == "unavailable"
    assert comparison.saved.why_unavailable() == "no jinja2"
    assert comparison.saved.why_unavailable("scores") == ""
    refused = Part("scores", "refused")
    assert Reading("r", (lacking, refused)).outcome == "refused"


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="Node runs this reader")
def test_reader_in_javascript_that_lacks_a_package_says_so(tmp_path: Path) -> None:
    home = tmp_path / "node_modules/@huggingface/transformers"
    home.mkdir(parents=True)
    package = {"version": "0", "main": "index.cjs", "name": "@huggingface/transformers"}
    (home / "package.json").write_text(json.dumps(package))
    load = "from_pretrained: async () => import('a-package-that-is-not-here')"
    (home / "index.cjs").write_text(f"exports.env = {{}}; exports.AutoTokenizer = {{ {load} }};")
    question = ask_about(make_folder(tmp_path / "a")).as_plain()
    done = subprocess.run(
        [str(NODE), str(PROGRAMS / "huggingface.js.mjs")],
        input=json.dumps(question) + "\n",
        env={"READER_MODULES": str(tmp_path / "node_modules")},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert set(answer["unavailable"]) == {"tokens", "chat"}
    assert answer["errors"] == {}
