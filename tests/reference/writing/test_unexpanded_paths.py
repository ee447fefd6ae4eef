"""Output folders whose names nobody meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers import models

from canonical_saver import RequestError, save_model


@pytest.mark.parametrize("path", ["dbfs:/mnt/x", "file:/tmp/x", "s3:/bucket"])
def test_build_with_a_scheme_and_one_slash_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="folder on this machine"):
        save_model(models.llama(), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("$OUTPUT", r"\$OUTPUT"),
        ("$HOME/x", r"\$HOME"),
        ("/data/$RUN_ID/x", r"\$RUN_ID"),
        ("${OUTPUT}/x", r"\$\{OUTPUT\}"),
        ("out-${oc.env:USER}", r"\$\{oc\.env:USER\}"),
    ],
)
def test_build_with_a_variable_in_the_path_is_refused(
    path: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"in the place of {variable}; write the path out"):
        save_model(models.llama(), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cost-5$", "$5", "a$b", "$", "{x}"])
def test_build_takes_names_that_are_no_variables(name: str, tmp_path: Path) -> None:
    assert save_model(models.llama(), tmp_path / name).output_dir == tmp_path / name
