"""``action.yml``: its steps, run one by one on the sample framework as a workflow would."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conformance.test_ci_recipes import Machine, machine  # noqa: F401 - a fixture

from saver_conformance.reports.result import read_result

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{ (inputs\.([\w-]+)|github\.action_path) \}\}")


def values(given: dict[str, str]) -> dict[str, str]:
    """The action's inputs, as the runner fills them in."""
    unknown = set(given) - set(ACTION["inputs"])
    missing = {k for k, v in ACTION["inputs"].items() if v.get("required")} - set(given)
    assert not unknown | missing
    return {
        name: given.get(name, spec.get("default", "")) for name, spec in ACTION["inputs"].items()
    }


def fill(text: str, inputs: dict[str, str]) -> str:
    """A value of ``env`` with its expressions replaced; others are not known here."""
    filled = EXPRESSION.sub(lambda found: inputs[found[2]] if found[2] else str(ROOT), text)
    assert "${{" not in filled, text
    return filled


def run(
    machine: Machine,  # noqa: F811
    folder: Path,
    **given: str,
) -> tuple[dict[str, subprocess.CompletedProcess[str]], str, str]:
    """Run the steps that are scripts; returns them by name, the outputs and the summary."""
    folder.mkdir()
    inputs = values({name.replace("_", "-"): value for name, value in given.items()})
    output, summary = folder / "output", folder / "summary.md"
    output.touch()
    summary.touch()
    done: dict[str, subprocess.CompletedProcess[str]] = {}
    for step in STEPS:
        if "run" not in step or "sudo" in step["run"]:
            continue
        if any(ended.returncode for ended in done.values()) and step.get("if") != "always()":
            continue
        env = {name: fill(value, inputs) for name, value in step["env"].items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
        there = Machine(machine.folder, machine.environment | env | files)
        done[step["name"]] = there.run(step["run"])
    return done, output.read_text(), summary.read_text()


def test_steps_are_scripts_that_see_inputs_only_as_variables() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert scripts
    # An expression inside of a script would run whatever an input holds.
    assert not any("${{" in script for script in scripts)
    assert all(step["shell"] == "bash" for step in STEPS if "run" in step)


def test_report_and_verdict_are_kept_whatever_the_verdict() -> None:
    later = [step["name"] for step in STEPS if step.get("if") == "always()"]
    assert later == ["Show the verdict", "Keep the report"]


def test_a_saver_that_conforms_ends_with_0(machine: Machine, tmp_path: Path) -> None:  # noqa: F811
    done, output, summary = run(
        machine,
        tmp_path / "runner",
        saver="tiny_framework.saving:save",
        modes="full-single",
        waivers="waivers.toml",
    )
    assert {name: ended.returncode for name, ended in done.items()} == dict.fromkeys(done, 0), done
    assert output == "exit-code=0\n"
    assert summary.startswith("## `tiny_framework.saving:save` conforms")
    result = read_result(machine.path("saver-report/report.json"))
    assert (result.profile, result.exit_code) == ("smoke", 0)


def test_a_broken_saver_ends_with_1_and_its_verdict(machine: Machine, tmp_path: Path) -> None:  # noqa: F811
    machine.path("broken.py").write_text("def save(cfg, trainer, model):\n    pass\n")
    done, output, summary = run(
        machine,
        tmp_path / "runner",
        saver="broken:save",
        modes="full-single",
        report="broken-report",
    )
    assert done["Judge the saver"].returncode == 1
    assert output == "exit-code=1\n"
    assert "does not conform" in summary


def test_a_wrong_input_ends_with_3(machine: Machine, tmp_path: Path) -> None:  # noqa: F811
    done, output, _ = run(
        machine,
        tmp_path / "runner",
        saver="tiny_framework.saving:nothing",
        modes="full-single",
        report="no-report",
    )
    assert done["Judge the saver"].returncode == 3
    assert output == "exit-code=3\n"


@pytest.mark.parametrize("name", ["saver", "modes", "waivers", "claims", "shard", "report"])
def test_an_input_is_one_word_of_the_command(name: str) -> None:
    (judge,) = [step for step in STEPS if step.get("id") == "judge"]
    assert f'"${name.upper()}"' in judge["run"]
