"""Readers in processes of their own: what they answer, how they fail, and the commands."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.installers import make_uv, make_wheel

from saver_conformance import cli
from saver_conformance.folder.safetensors import write as write_tensors
from saver_conformance.observation.observation import Tensor
from saver_conformance.readers import environment
from saver_conformance.readers.environment import EnvironmentUnavailableError
from saver_conformance.readers.question import NoQuestionError, Question, ask_about
from saver_conformance.readers.reader import Reader, read_reader
from saver_conformance.readers.session import Session
from saver_conformance.readers.worker import Worker

PROGRAM = Path(__file__).parents[2] / "helpers/plain_reader.py"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
TENSORS = {"model.norm.weight": Tensor("F32", (2,), bytes(8))}


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64}
    (folder / "config.json").write_text(json.dumps(config))
    words = {f"w{number}": number for number in range(60)}
    model = {"model": {"type": "WordLevel", "vocab": words}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(model))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    write_tensors(folder / "model.safetensors", TENSORS)
    return folder


@pytest.fixture
def reader() -> Reader:
    return read_reader(PROGRAM)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_reader_answers_about_one_folder_after_the_other(tmp_path: Path, reader: Reader) -> None:
    question = ask_about(make_folder(tmp_path / "a"))
    with Worker(reader) as worker:
        first, second = worker.ask(question), worker.ask(question)
        assert worker.versions == {"plain": "1"}
    assert first.chat == "w4 w5 w6\nw7 w8\nw9 w10\n"
    assert first.tokens == second.tokens
    assert first.errors == first.unsupported == {}


def test_what_a_reader_does_not_give_or_the_folder_lacks_is_not_asked(
    tmp_path: Path, reader: Reader
) -> None:
    folder = make_folder(tmp_path / "a")
    (folder / "chat_template.jinja").unlink()
    with Worker(reader) as worker:
        answer = worker.ask(ask_about(folder))
    assert (answer.chat, answer.scores, answer.errors) == (None, None, {})


def test_a_crash_is_the_error_of_its_folder_and_the_next_is_read(
    tmp_path: Path, reader: Reader
) -> None:
    with Worker(reader) as worker:
        crashed = worker.ask(ask_about(make_folder(tmp_path / "crash")))
        assert set(crashed.errors) == {"tokens", "chat", "digests"}
        assert "ended with 3" in crashed.errors["tokens"]
        assert worker.ask(ask_about(make_folder(tmp_path / "a"))).has("tokens")


def test_a_reader_that_hangs_is_ended(tmp_path: Path, reader: Reader) -> None:
    with Worker(replace(reader, limit=0.5)) as worker:
        answer = worker.ask(ask_about(make_folder(tmp_path / "hang")))
    assert "no answer in 0.5 s" in answer.errors["tokens"]


def test_a_reader_that_does_not_start_is_unavailable(tmp_path: Path, reader: Reader) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(PROGRAM.read_text().replace("import hashlib", "import no_such_library"))
    question = ask_about(make_folder(tmp_path / "a"))
    with Session([read_reader(broken)]) as session:
        why = session.ask(read_reader(broken), question)
    assert isinstance(why, str)
    assert "no_such_library" in why


def test_an_adapter_of_a_kind_that_a_reader_lacks_is_not_read(
    tmp_path: Path, reader: Reader
) -> None:
    weights_only = replace(reader, gives=("scores",))
    question = replace(ask_about(make_folder(tmp_path / "a")), kinds=("dora",))
    with Worker(weights_only) as worker:
        answer = worker.ask(replace(question, adapter=tmp_path))
    assert "dora" in answer.unsupported["scores"]


def test_a_folder_with_code_of_its_own_is_given_to_no_reader(tmp_path: Path) -> None:
    for key in ("auto_map", "model_file"):
        folder = make_folder(tmp_path / key)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {key: "x.py"}))
        with pytest.raises(NoQuestionError, match="code of its own"):
            ask_about(folder)


def test_an_adapter_needs_its_base_and_a_model_none(tmp_path: Path) -> None:
    base, adapter = make_folder(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    with pytest.raises(NoQuestionError, match="--base"):
        ask_about(adapter)
    with pytest.raises(NoQuestionError, match="--base"):
        ask_about(base, base)
    question = ask_about(adapter, base)
    assert (question.folder, question.adapter, question.kinds) == (base, adapter, ("dora",))
    assert question.tokenizer == base


def test_command_read_tells_right_from_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path / "none"))
    folder = make_folder(tmp_path / "a")
    assert call("read", str(folder), "--reader", str(PROGRAM)) == 0
    assert "tensors right" in capsys.readouterr().out
    stale = {"model.norm.weight": Tensor("F32", (2,), b"12345678")}
    write_tensors(folder / "model-00001-of-00002.safetensors", stale)
    assert call("read", str(folder), "--reader", str(PROGRAM), "--json") == 1
    plain = json.loads(capsys.readouterr().out)["readers"][0]
    assert plain["outcome"] == "wrong"
    assert [part["name"] for part in plain["parts"] if part["outcome"] == "wrong"] == ["digests"]


def test_command_read_is_inconclusive_where_a_named_reader_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path / "none"))
    assert call("read", str(make_folder(tmp_path / "a")), "--reader", "mlx-lm") == 2
    assert "saver-conformance readers install mlx-lm" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_command_read_refuses_wrong_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "a")
    assert call("read", str(folder), "--reader", "nobody") == 3
    (folder / "config.json").unlink()
    assert call("read", str(folder), "--reader", str(PROGRAM)) == 3
    assert call("readers", "install") == 3
    assert capsys.readouterr().err.count("saver-conformance: ") == 3


def test_command_readers_lists_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    assert call("readers", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= {"transformers", "vllm", "huggingface.js"}
    assert all("not installed" in line for line in lines)


def needing(reader: Reader, *install: str) -> Reader:
    return replace(reader, dependencies=install)


def test_an_environment_is_made_once_and_marked_at_its_end(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    calls: list[Path] = []
    monkeypatch.setattr(environment, "_install", lambda _, place: calls.append(place))
    own = needing(reader, "a==1")
    left = environment.place_of(own)
    left.mkdir()
    (left / "half").write_text("of an installation that was cut off")
    with pytest.raises(EnvironmentUnavailableError, match="readers install plain"):
        environment.command_of(own)
    environment.make(own)
    environment.make(own)
    assert calls == [left]
    assert environment.is_made(own)
    assert not (left / "half").exists()
    assert environment.place_of(needing(reader, "a==2")) != left


def test_pip_installs_what_uv_does_not_know_of(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    uv = make_uv(tmp_path)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=os.pathsep)
    own = needing(reader, str(make_wheel(tmp_path)))
    environment.make(own)
    python = environment.place_of(own) / "venv/bin/python"
    subprocess.run([python, "-c", "import known_to_pip"], check=True)
    assert "no such package" in (environment.place_of(own) / "install.log").read_text()


def test_an_environment_that_cannot_be_made_is_unavailable_with_its_reason(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    other = replace(needing(reader, "a==1"), python="2.0")
    with pytest.raises(EnvironmentUnavailableError, match=r"needs Python 2\.0"):
        environment.make(other)
    assert not environment.is_made(other)


def test_a_reader_without_dependencies_runs_in_the_suites_own_python(reader: Reader) -> None:
    assert environment.is_made(reader)
    assert environment.make(reader) == 0.0


def test_prompts_are_tokens_of_the_models_vocabulary(tmp_path: Path) -> None:
    question: Question = ask_about(make_folder(tmp_path / "a"))
    assert [len(prompt) for prompt in question.prompts] == [1, 7, 40]
    assert all(0 <= token < 64 for prompt in question.prompts for token in prompt)
