"""What ``init`` reads from the source of a saver, and the call that it makes of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from saver_conformance.errors import UnknownSaverError
from saver_conformance.getting_started.signature import call, read_parameters


def read(folder: Path, source: str, address: str = "module_of_a_test:save") -> str:
    (folder / "module_of_a_test.py").write_text(source)
    return call("f", read_parameters(address, folder))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("cfg, trainer, model", "f(cfg, trainer, model)"),
        ("model, output_dir", "f(model=model, output_dir=cfg.output_dir)"),
        ("trainer, path, /", "f(trainer, cfg.output_dir)"),
        (
            "model, folder, tokenizer=None, *, verbose=False",
            "f(model=model, folder=cfg.output_dir, tokenizer=trainer.processing_class)",
        ),
        (
            "model, save_directory, max_shard_size='5GB'",
            "f(model=model, save_directory=cfg.output_dir,"
            " max_shard_size=cfg.max_shard_size or '5GB')",
        ),
        ("model, max_shard_size=None", "f(model=model, max_shard_size=cfg.max_shard_size)"),
        ("model, colour, *more, **rest", "f(model=model, colour=None)"),
    ],
)
def test_call_passes_what_the_parameters_are_named_after(
    parameters: str, expected: str, tmp_path: Path
) -> None:
    made = read(tmp_path, f"def save({parameters}): ...\n")
    assert ast.unparse(ast.parse(made)) == expected


def test_call_with_a_parameter_that_nobody_knows_marks_the_line(tmp_path: Path) -> None:
    assert "colour=None,  # set this: colour" in read(tmp_path, "def save(model, colour): ...\n")


def test_read_parameters_of_a_function_from_elsewhere_are_unknown(tmp_path: Path) -> None:
    assert read(tmp_path, "from other import save\n") == "f(cfg, trainer, model)"


def test_read_parameters_runs_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "raise SystemExit\ndef save(model): ...\n") == "f(\n    model=model,\n)"


@pytest.mark.parametrize("address", ["save", "a:", ":b", "a/b:c", "a:b.c", "a..b:c"])
def test_read_parameters_of_no_address_is_an_error(address: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownSaverError, match=r"package\.module:function"):
        read_parameters(address, tmp_path)


def test_read_parameters_of_no_python_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownSaverError, match="as Python"):
        read(tmp_path, "def save(:\n")
