"""A saver judged by the Python of another environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from tests.helpers.installers import make_uv, make_wheel

from saver_conformance.environments import make, worker
from saver_conformance.environments.cache import COMPLETE, keep
from saver_conformance.environments.inside import call_suite, with_saver
from saver_conformance.environments.make import python_of
from saver_conformance.environments.recipe import Recipe
from saver_conformance.errors import EnvironmentFailedError
from saver_conformance.reports.result import read_report

ROOT = Path(__file__).parents[3]
OUTSIDE = """
import sys
from saver_conformance import cli
try:
    cli.main()
finally:
    heavy = {"torch", "transformers", "peft", "accelerate"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAVER_CONFORMANCE_CACHE", str(folder))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment with the libraries of this one and nothing of this checkout."""
    folder = tmp_path / "env"
    venv.create(folder)
    [site] = (folder / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return folder


def test_saver_of_another_environment_is_judged_from_outside(
    environment: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "own_saver.py").write_text("def save(cfg, trainer, model): pass\n")
    saver = f"venv:{environment}#own_saver:save"
    command = ["replay", "-", "--saver", saver, "--report", "report"]
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE, *command],
        cwd=work,
        input='{"mode": "full-single"}',
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "does not conform" in done.stdout
    report = read_report(work / "report" / "report.json")
    assert report["saver"] == saver
    replays = {item["example"]["replay"] for item in report["causes"]}
    assert replays
    assert all(f"'{saver}'" in replay for replay in replays)


def test_run_that_ends_without_a_report_accuses_nobody(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.json").write_text("{}")  # of an earlier run
    with pytest.raises(EnvironmentFailedError, match="nobody is accused"):
        call_suite(python, ["run"], report)
    python.write_text("#!/bin/sh\nexit 3\n")
    assert call_suite(python, ["run"], report) == 3


@pytest.mark.parametrize(
    "words", [["run", "--saver", "old", "--modes", "x"], ["run", "--saver=old", "--modes", "x"]]
)
def test_with_saver_replaces_only_its_value(words: list[str]) -> None:
    found = with_saver([*words, "--savers-dir", "old"], "new:f")
    assert "new:f" in " ".join(found)
    assert found[-2:] == ["--savers-dir", "old"]
    assert found.count("old") == 1


def test_environment_without_libraries_names_what_is_missing(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare")
    with pytest.raises(EnvironmentFailedError, match=r"lacks hypothesis.*pip install"):
        python_of(Recipe("a:b", venv=tmp_path / "bare"), print)
    with pytest.raises(EnvironmentFailedError, match="no bin/python"):
        python_of(Recipe("a:b", venv=tmp_path / "nowhere"), print)


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_environment_is_made_once_with_the_suites_needs(
    uv: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def call(command: list[str]) -> None:
        calls.append(command)
        if "venv" in command:
            venv.create(command[-1])

    monkeypatch.setattr(make, "_call", call)
    monkeypatch.setattr(make, "_expect_needs", lambda *_: None)
    monkeypatch.setattr(make.shutil, "which", lambda name: uv if name == "uv" else None)
    recipe = Recipe("a:save", ("a==1", "b"))
    python = python_of(recipe, print)
    assert python_of(recipe, print) == python
    assert len(calls) == 2
    assert calls[1][-len(worker.NEEDS) - 2 :] == ["a==1", "b", *worker.NEEDS]
    assert (calls[0][0] == uv) is (uv is not None)
    assert python_of(Recipe("a:save", ("a==2", "b")), print) != python


def test_pip_installs_what_uv_does_not_know_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(make_uv(tmp_path).parent), prepend=os.pathsep)
    monkeypatch.setattr(make, "NEEDS", ())
    monkeypatch.setattr(make, "_expect_needs", lambda *_: None)
    python = python_of(Recipe("a:save", (str(make_wheel(tmp_path)),)), print)
    subprocess.run([python, "-c", "import known_to_pip"], check=True)


def test_exact_pins_are_installed_as_they_are_and_name_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(make, "_call", calls.append)
    monkeypatch.setattr(make.shutil, "which", lambda name: "/bin/uv")
    pins = tmp_path / "pins.txt"
    pins.write_text("a==1\n")

    def made() -> Path:
        monkeypatch.setattr(
            make, "keep", lambda kind, name, build: (build(tmp_path), Path(name))[1]
        )
        return make._make(Recipe("a:save", ("torch==2",), (pins,)), print)

    first = made()
    assert [command[-3:] for command in calls[2:3]] == [["--no-deps", "-r", str(pins)]]
    pins.write_text("a==2\n")
    assert made() != first


def test_keep_incomplete_folder_is_made_anew(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        keep("kind", "name", fail)
    made: list[Path] = []

    def build(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    folder = keep("kind", "name", build)
    assert keep("kind", "name", build) == folder == own_cache / "kind" / "name"
    assert made == [folder]
    assert [path.name for path in folder.iterdir()] == [COMPLETE]


def test_worker_has_the_suite_and_nothing_else() -> None:
    whole = worker.make_worker()
    folder = whole / "suite"
    assert "saver_conformance" in {path.name for path in folder.iterdir()}
    assert "canonical_saver" not in {path.name for path in folder.iterdir()}
    assert not list(whole.rglob("__pycache__"))
    assert (folder / "saver_conformance" / "spec.md").is_file()
    text = "import saver_conformance, json; print(json.dumps(saver_conformance.__file__))"
    done = subprocess.run(
        [sys.executable, "-c", text], env={"PYTHONPATH": str(folder)}, capture_output=True
    )
    assert Path(json.loads(done.stdout)).is_relative_to(folder)
    assert worker.make_worker() == whole


def test_needs_are_those_of_the_suites_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = " ".join((*project["dependencies"], *project["optional-dependencies"]["conformance"]))
    assert all(name in extra for name in worker.NEEDS)
