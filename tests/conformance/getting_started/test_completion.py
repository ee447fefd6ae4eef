"""Completion in shells, and the help of every command."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from canonical_saver import cli as saver_cli
from saver_conformance import cli as suite_cli
from saver_conformance.commands.starting import SHELLS

SYNTAX = {"bash": "-n", "zsh": "-n", "fish": "--no-execute"}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


PROGRAMS = {"canonical-saver": saver_cli.make_parser, "saver-conformance": suite_cli.make_parser}
COMMANDS = [
    pytest.param(parser, id=parser.prog) for make in PROGRAMS.values() for parser in parsers(make())
]


@pytest.mark.parametrize("parser", COMMANDS)
def test_help_has_an_example_that_is_understood(
    parser: argparse.ArgumentParser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("out", "out-a", "out-b", "base", "adapter", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "report" / "cases").mkdir(parents=True)
    (tmp_path / "report" / "cases" / "CASE.json").write_text('{"mode": "full-single"}')
    _, _, examples = parser.format_help().rpartition("Example")
    lines = [line.strip() for line in examples.splitlines() if line.startswith("  ")]
    program = parser.prog.split()[0]
    assert lines
    assert all(line.startswith(parser.prog) for line in lines)
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] == program
        PROGRAMS[program]().parse_args(words[1:])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_completion_prints_a_script_with_commands_and_options(
    shell: str, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("shtab", reason="the extra 'completion' is not installed")
    if program == "canonical-saver":
        assert saver_cli.main(["completion", shell]) == 0
    else:
        with pytest.raises(SystemExit) as ended:
            suite_cli.main(["completion", shell])
        assert ended.value.code == 0
    script = capsys.readouterr().out
    assert program in script
    known = {
        word
        for parser in parsers(PROGRAMS[program]())
        for action in parser._actions
        for word in (*action.option_strings, *(action.choices or ()))
        if word.startswith("--") or isinstance(action, argparse._SubParsersAction)
    }
    assert {"completion", "--version"} <= known
    assert [word for word in known if word.lstrip("-") not in script] == []
    if there := shutil.which(shell):
        checked = subprocess.run([there, SYNTAX[shell]], input=script, text=True)
        assert checked.returncode == 0


def test_completion_in_bash_completes_a_command() -> None:
    pytest.importorskip("shtab", reason="the extra 'completion' is not installed")
    script = "\n".join(
        (
            'eval "$(python -m saver_conformance completion bash)"',
            "COMP_WORDS=(saver-conformance ex); COMP_CWORD=1",
            "$(complete -p saver-conformance | grep -o -- '-F [^ ]*' | cut -c4-)"
            " saver-conformance ex saver-conformance",
            'echo "${COMPREPLY[@]}"',
        )
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["explain"], done.stderr


def test_completion_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        suite_cli.main(["completion", "bash"])
    assert ended.value.code == 3
    assert "canonical-saver[completion]" in capsys.readouterr().err
    assert saver_cli.main(["completion", "bash"]) == 1
    assert "canonical-saver[completion]" in capsys.readouterr().err
