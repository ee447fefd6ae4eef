"""``saver-conformance init``: its files are right, and its job runs on the sample framework."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conformance.test_ci_recipes import Machine, machine  # noqa: F401 - a fixture

from saver_conformance.cases.case import select_modes
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.cli import main
from saver_conformance.getting_started.signature import Parameter
from saver_conformance.getting_started.starter_files import (
    ADAPTER,
    CLAIMS,
    WORKFLOW,
    Framework,
    make,
)
from saver_conformance.reports.result import read_result

SAVER = "tiny_framework.saving:save"


def made(modes: str = "full-single", **changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {
        "saver": "my_package.saving:save_model",
        "patterns": tuple(modes.split(",")),
        "modes": select_modes(modes),
        "parameters": None,
        "is_project": True,
    }
    return make(Framework(**(values | changes)))


def job(files: dict[str, str]) -> dict[str, str]:
    """The scripts of the job, by the names of their steps."""
    steps = yaml.safe_load(files[WORKFLOW])["jobs"]["conformance"]["steps"]
    return {step["name"]: step["run"] for step in steps if "run" in step}


@pytest.mark.parametrize("name", ["save", "cfg", "model", "trainer", "save_model"])
def test_make_the_adapter_is_python_whatever_the_function_is_called(name: str) -> None:
    tree = ast.parse(made(saver=f"my_package:{name}")[ADAPTER])
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    arguments = [argument.arg for argument in function.args.args]
    assert (function.name, arguments) == ("save", ["cfg", "trainer", "model"])
    (called,) = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)][-1].names[0]
    assert imported.name == name
    assert isinstance(called.func, ast.Name)
    assert called.func.id == (imported.asname or imported.name)
    assert called.func.id not in {*arguments, "save"}


def test_make_the_claims_are_those_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / CLAIMS
    path.write_text(made("full-*,lora-ddp")[CLAIMS])
    assert read_claims(path).modes == ("full-*", "lora-ddp")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("model", "output_dir"), {"max_shard_size": (None,)}),
        (("model", "max_shard_size"), {}),
        (("cfg", "trainer", "model"), {}),
    ],
)
def test_make_a_saver_without_a_limit_of_files_does_not_claim_one(
    names: tuple[str, ...], expected: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / CLAIMS
    path.write_text(made(parameters=tuple(map(Parameter, names)))[CLAIMS])
    assert read_claims(path).only == expected


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ("full-single", "conformance"),
        ("lora-zero*", "conformance,deepspeed"),
        ("qlora-ddp", "conformance,qlora"),
        ("*", "conformance,deepspeed,qlora"),
    ],
)
def test_make_the_job_installs_what_the_modes_need(modes: str, expected: str) -> None:
    install = job(made(modes))["Install the framework and the suite"]
    assert install == f'pip install "canonical-saver[{expected}]" .'


def test_init_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module_of_init.py").write_text("def save(model, colour): ...\n")
    (tmp_path / CLAIMS).write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["init", "module_of_init:save"])
    assert ended.value.code == 3
    assert CLAIMS in capsys.readouterr().err
    assert (tmp_path / CLAIMS).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["module_of_init.py", CLAIMS]


def test_init_says_what_is_left_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "module_of_init.py").write_text("def save(model, colour): ...\n")
    with pytest.raises(SystemExit) as ended:
        main(["init", "module_of_init:save", "--dir", str(tmp_path)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"Set colour in {ADAPTER}" in printed
    assert "Add your framework to the step" in printed


def test_init_of_a_saver_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", "package_that_nobody_has:save", "--dir", str(tmp_path)])
    assert ended.value.code == 3
    assert not list(tmp_path.iterdir())


def test_the_job_judges_the_sample_framework(machine: Machine) -> None:  # noqa: F811
    install = machine.run('pip install "canonical-saver[conformance]"')
    assert install.returncode == 0, install.stderr
    asked = machine.run(f"saver-conformance init {SAVER} --modes full-single")
    assert asked.returncode == 0, asked.stderr
    steps = job({WORKFLOW: machine.path(WORKFLOW).read_text()})
    assert any(script.startswith("sudo ") for script in steps.values())
    for name, script in steps.items():
        if not script.startswith("sudo "):
            done = machine.run(script)
            assert done.returncode == 0, (name, done.stdout, done.stderr)
    result = read_result(machine.path("report/report.json"))
    assert (result.saver, result.exit_code) == ("saver_adapter:save", 0)
    assert result.executed == result.expected >= 2
    summary = Path(machine.environment["GITHUB_STEP_SUMMARY"]).read_text()
    assert summary.startswith("## `saver_adapter:save` conforms")
