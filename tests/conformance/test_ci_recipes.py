"""The recipes of ``docs/ci.md``, command by command, on a sample framework and from the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from saver_conformance.reports.result import read_result

ROOT = Path(__file__).parents[2]
FRAMEWORK = ROOT / "fixtures" / "framework"
BLOCK = re.compile(r"^```(\w+)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {match[2]: match[3] for match in BLOCK.finditer((ROOT / "docs" / "ci.md").read_text())}
WORKFLOW = yaml.safe_load(BLOCKS[".github/workflows/saver.yml"])
[HOOK] = yaml.safe_load(BLOCKS[".pre-commit-config.yaml"])["repos"][0]["hooks"]


@dataclass(frozen=True)
class Machine:
    """A copy of the framework, in an environment that has nothing of this repository."""

    folder: Path
    environment: dict[str, str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def machine(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The libraries come from here, without what makes the checkout importable."""
    folder = tmp_path_factory.mktemp("machine")
    shutil.copytree(FRAMEWORK, folder / "framework")
    venv.create(folder / "env", with_pip=True)
    [site] = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return Machine(
        folder / "framework",
        {
            **inherited,
            "PATH": f"{folder / 'env' / 'bin'}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            # No download for each test run: our wheel, and the build backend that is installed.
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheel.parent),
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_FORCE_REINSTALL": "1",  # though the libraries' folder knows this checkout
        },
    )


@pytest.fixture(scope="module")
def job(machine: Machine) -> dict[str, subprocess.CompletedProcess[str]]:
    """What the workflow's steps did, by their names; a step runs as the workflow has it."""
    done = {}
    for step in WORKFLOW["jobs"]["conformance"]["steps"]:
        if "run" in step and not step["run"].startswith("sudo "):
            done[step["name"]] = machine.run(step["run"])
    return done


def test_the_workflow_installs_the_wheel_and_the_framework(
    machine: Machine, job: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert job["Install the framework and the suite"].returncode == 0
    where = machine.run("cd / && python -c 'import saver_conformance as s; print(s.__file__)'")
    assert Path(where.stdout.strip()).is_relative_to(machine.folder.parent / "env")


def test_the_workflow_judges_the_saver(
    machine: Machine, job: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    judged = job["Judge the saver"]
    assert judged.returncode == 0, judged.stdout + judged.stderr
    result = read_result(machine.path("report/report.json"))
    assert (result.saver, result.exit_code) == ("tiny_framework.saving:save", 0)
    assert result.versions["tiny-framework"] == "1.2.3"
    assert result.executed == result.expected >= 4
    assert result.count("waived") == 1
    badge = json.loads(machine.path("report/badge.json").read_text())
    assert badge["message"] == "conforms (smoke, 2 modes, 1 waived)"


def test_the_workflow_shows_the_verdict_and_keeps_the_report(
    machine: Machine, job: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    assert job["Show the verdict"].returncode == 0
    shown = Path(machine.environment["GITHUB_STEP_SUMMARY"]).read_text()
    assert shown.startswith("## `tiny_framework.saving:save` conforms: ")
    steps = WORKFLOW["jobs"]["conformance"]["steps"]
    [kept] = [step for step in steps if step.get("name") == "Keep the report"]
    assert (kept["if"], kept["with"]["path"]) == ("always()", "report")
    assert machine.path("report/index.html").is_file()


def test_the_hook_runs_the_clauses_as_tests(
    machine: Machine, job: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    done = machine.run(HOOK["entry"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    assert "1 xfailed" in done.stdout
    assert re.search(HOOK["files"], "tiny_framework/saving.py")
    assert HOOK["pass_filenames"] is False


def test_the_waivers_that_are_shown_are_those_of_the_sample() -> None:
    shown: dict[str, Any] = tomllib.loads(BLOCKS["waivers.toml"])
    kept = tomllib.loads((FRAMEWORK / "waivers.toml").read_text())
    assert shown["FILES-010"].items() <= kept["FILES-010"].items()
