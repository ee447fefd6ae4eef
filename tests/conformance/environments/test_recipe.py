"""Addresses of environments, and the file of entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.environments.recipe import Recipe, find_recipe, name_of
from saver_conformance.errors import EnvironmentFailedError


@pytest.mark.parametrize(
    ("saver", "recipe"),
    [
        ("uv:axolotl==0.19.0", Recipe("axolotl", ("axolotl==0.19.0",))),
        ("uv:axolotl[x]==0.19 torch", Recipe("axolotl", ("axolotl[x]==0.19", "torch"))),
        ("uv:my-fw#my.mod:save", Recipe("my.mod:save", ("my-fw",))),
        ("venv:env#my.mod:save", Recipe("my.mod:save", venv=Path("/here/env"))),
        ("venv:/else/env#peft", Recipe("peft", venv=Path("/else/env"))),
        ("my.mod:save", None),
        ("peft", None),
    ],
)
def test_find_recipe_address(saver: str, recipe: Recipe | None) -> None:
    assert find_recipe(saver, None, Path("/here")) == recipe


@pytest.mark.parametrize("saver", ["uv:", "uv:#a:b", "venv:env", "venv:#a:b", "uv:x#a b", "uv:x#"])
def test_find_recipe_wrong_address_is_one_message(saver: str) -> None:
    with pytest.raises(EnvironmentFailedError):
        find_recipe(saver, None, Path("/here"))


def test_find_recipe_reads_the_file_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "saver-environments.toml").write_text(
        '[savers.one]\nrequirements = ["a==1", "b"]\nexact = ["pins.txt"]\npython = "3.12"\n'
        'call = "a:save"\n[savers.two]\nvenv = "env"\ncall = "two"\n'
    )
    one = Recipe("a:save", ("a==1", "b"), (tmp_path / "pins.txt",), "3.12")
    assert find_recipe("one", None, tmp_path) == one
    assert find_recipe("two", None, tmp_path) == Recipe("two", venv=tmp_path / "env")
    assert find_recipe("three", None, tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "x = 1",
        "savers = 1",
        "[savers]\nx = 1",
        "[savers.x]\ncall = 'a:b'",
        "[savers.x]\nrequirements = ['a']",
        "[savers.x]\nrequirements = 'a'\ncall = 'a:b'",
        "[savers.x]\nrequirements = ['a']\ncall = 1",
        "[savers.x]\nrequirements = ['a']\nvenv = 'v'\ncall = 'a:b'",
        "[savers.x]\nrequirements = ['a']\ncall = 'a:b'\nunheard = 1",
    ],
)
def test_find_recipe_wrong_file_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(EnvironmentFailedError, match=r"own\.toml"):
        find_recipe("x", path, tmp_path)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("a-b==1", "a-b"), ("a[x]>=1", "a"), ("./fw", "fw"), ("git+https://h/o/r@v1", "r")],
)
def test_name_of_requirement(requirement: str, name: str) -> None:
    assert name_of(requirement) == name
