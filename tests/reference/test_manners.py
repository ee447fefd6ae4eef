"""How the saver speaks: errors, the log, options of the callback, and ranks that do not come."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.helpers import models, worlds

from canonical_saver import LostRankError, RequestError, SaveError, save_model, save_trained_model
from canonical_saver import messages as ranks_module
from canonical_saver.callback import CanonicalSaveCallback


def arguments(folder: Path, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(output_dir=str(folder), process_index=0, **more)


def test_error_of_one_process_names_no_rank_and_no_class(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        save_model(models.llama(), tmp_path / "m", format="gguf")  # type: ignore[arg-type]
    assert str(caught.value).startswith("format: expected one of safetensors")


def test_error_of_a_cfg_key_names_the_key(tmp_path: Path) -> None:
    cfg = {"output_dir": tmp_path / "m", "save_format": "gguf"}
    with pytest.raises(RequestError, match=r"^save_format: expected"):
        save_trained_model(cfg, None, models.llama())


def test_error_of_the_outside_keeps_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "canonical_saver.writing.write_plan.weights.collect", lambda *_, **__: 1 / 0
    )
    with pytest.raises(Exception, match=r"^ZeroDivisionError: division by zero$"):
        save_model(models.llama(), tmp_path / "m")


def test_save_logs_begin_and_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="canonical_saver"):
        report = save_model(models.llama(), tmp_path / "m")
    begun, *added, ended = [record.getMessage() for record in caplog.records]
    assert tuple(added) == report.portability
    assert str(tmp_path / "m") in begun
    assert f"{report.bytes} bytes" in ended
    assert ended.endswith(" s")


def test_save_trained_model_returns_the_report(tmp_path: Path) -> None:
    report = save_trained_model({"output_dir": tmp_path / "m"}, None, models.llama())
    assert report.ranks == 1
    assert "model.safetensors" in report.files


@pytest.mark.parametrize(
    "options",
    [{"format": "gguf"}, {"dtype": "int8"}, {"max_shard_size": "much"}, {"verify": "twice"}],
    ids=lambda options: next(iter(options)),
)
def test_callback_with_a_wrong_value_is_not_made(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(options))):
        CanonicalSaveCallback(**options)


def test_callback_with_an_unknown_option_is_not_made() -> None:
    with pytest.raises(TypeError, match="max_shardsize"):
        CanonicalSaveCallback(max_shardsize="20KB")  # type: ignore[call-arg]


def test_callback_whose_folder_is_a_file_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trainer = SimpleNamespace(args=arguments(tmp_path / "file" / "deeper"))
    with pytest.raises(RequestError, match="found a file"):
        CanonicalSaveCallback(trainer)
    callback = CanonicalSaveCallback()
    with pytest.raises(RequestError, match="found a file"):
        callback.on_train_begin(arguments(tmp_path / "file"), None, None)


def test_callback_hands_on_its_options(tmp_path: Path) -> None:
    callback = CanonicalSaveCallback(dtype="bf16", max_shard_size="20KB", checksums=True)
    callback.on_train_end(arguments(tmp_path / "m"), None, None, model=models.llama())
    assert callback.report is not None
    assert {"model.safetensors.index.json", "SHA256SUMS"} <= set(callback.report.files)
    shards = [load_file(path) for path in (tmp_path / "m").glob("*.safetensors")]
    assert {tensor.dtype for shard in shards for tensor in shard.values()} == {torch.bfloat16}


def save_alone(rank: int, folder: str) -> tuple[list[str], str]:
    """Let rank 0 alone save; returns what it logs, and the error."""
    store = dist.distributed_c10d._get_default_store()
    said: list[str] = []
    error = ""
    if rank:
        store.wait(["given up"], timedelta(seconds=100))
    else:
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("canonical_saver").addHandler(handler)
        group = dist.group.WORLD
        assert group is not None
        group._get_backend(torch.device("cpu"))._set_default_timeout(timedelta(seconds=3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks_module, "WAIT_SECONDS", 0.1)
            try:
                save_model(models.llama(), folder)
            except LostRankError as lost:
                error = str(lost)
        store.set("given up", "yes")
    # The group is broken by the time-out; what runs the ranks ends them together.
    dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{folder}-again", rank=rank, world_size=3)
    return said, error


def test_call_on_one_rank_alone_names_the_awaited(tmp_path: Path) -> None:
    (said, error), _, _ = worlds.run(3, save_alone, str(tmp_path / "m"))
    assert len(said) == 1
    assert "ranks [1, 2]" in said[0]
    assert "every rank" in said[0]
    assert "called on every rank?" in error
    assert not (tmp_path / "m").exists()


def test_lost_rank_error_is_a_save_error() -> None:
    assert issubclass(LostRankError, SaveError)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_of_the_package_imports_no_library() -> None:
    code = (
        "import sys, canonical_saver, canonical_saver.cli;"
        "print([n for n in ('torch', 'transformers', 'peft') if n in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_public_names_are_all_there() -> None:
    code = (
        "import canonical_saver as c;"
        "print([n for n in c.__all__ if not hasattr(c, n) or n not in dir(c)])"
    )
    assert run_python(code) == "[]"


def test_command_line_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    from canonical_saver.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("canonical-saver ")


def test_save_without_adapters_does_not_import_peft(tmp_path: Path) -> None:
    code = (
        "import sys, transformers\n"
        "from canonical_saver import save_model\n"
        "sizes = dict(vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1)\n"
        "config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)\n"
        f"save_model(transformers.LlamaForCausalLM(config), {str(tmp_path / 'm')!r})\n"
        "print('peft' in sys.modules)"
    )
    assert run_python(code) == "False"
