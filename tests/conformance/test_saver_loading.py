"""A saver that cannot be called is told before anything is trained, with file and line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saver_conformance.cases.case import Mode
from saver_conformance.claims.known_savers import check_address
from saver_conformance.errors import UnknownSaverError
from saver_conformance.execution.workload import Workload
from saver_conformance.processes.rank import SaverNotFoundError, find_saver
from saver_conformance.run import run_conformance

FAKE = "tests.helpers.fake_workload"
ROOT = Path(__file__).parents[2]
SINGLE = Mode("full", "single")
BROKEN = {
    "key": ("import os\nHOME = os.environ['NO_SUCH_NAME']\n", "KeyError: 'NO_SUCH_NAME'", 2),
    "syntax": ("X = 1\ndef save(a, b, c)\n    pass\n", "SyntaxError: expected ':'", 2),
    "inner": ("import no_such_library\n", "No module named 'no_such_library'", 1),
    "ends": ("import sys\n\nsys.exit(3)\n", "SystemExit: 3", 3),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def write(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)


@pytest.mark.parametrize("kind", BROKEN)
def test_find_saver_tells_file_line_and_error(kind: str, project: Path) -> None:
    source, error, line = BROKEN[kind]
    write(project, f"broken_{kind}", source)
    with pytest.raises(SaverNotFoundError) as caught:
        find_saver(f"broken_{kind}:save")
    told = str(caught.value)
    assert error in told
    assert f"broken_{kind}.py" in told
    assert f"line {line}" in told
    assert "PYTHONPATH" not in told
    assert "importlib" not in told


def test_find_saver_without_the_module_says_where_to_run() -> None:
    with pytest.raises(SaverNotFoundError, match="or set PYTHONPATH"):
        find_saver("no_such_package.saving:save")


def test_run_tells_it_before_the_bench_is_imported(project: Path) -> None:
    write(project, "broken_early", "raise KeyError('x')")
    workload = Workload("no.such.workload", FAKE, FAKE, process_group=False, operators="")
    with pytest.raises(UnknownSaverError, match=r"KeyError: 'x'(.|\n)*broken_early\.py"):
        run_conformance("broken_early:save", modes=[SINGLE], profile="smoke", workload=workload)


@pytest.mark.parametrize(
    ("signature", "fits"),
    [
        ("cfg, trainer, model", True),
        ("cfg, trainer, model, extra=None", True),
        ("*arguments", True),
        ("cfg, trainer, model, *, key=1, **more", True),
        ("cfg, model", False),
        ("cfg, trainer, model, tokenizer", False),
        ("*, cfg, trainer, model", False),
        ("cfg, trainer, model, *, key", False),
        ("", False),
    ],
)
def test_find_saver_tells_a_signature_that_cannot_be_called(
    signature: str, fits: bool, project: Path
) -> None:
    name = f"signed_{abs(hash(signature))}"
    write(project, name, f"def save({signature}): pass\n")
    if fits:
        assert callable(find_saver(f"{name}:save"))
        return
    with pytest.raises(SaverNotFoundError, match=r"is called as function\(cfg, trainer, model\)"):
        find_saver(f"{name}:save")


def test_find_saver_judges_no_signature_that_it_cannot_know(project: Path) -> None:
    write(
        project,
        "wrapped",
        "import functools\n"
        "def strict(cfg): pass\n"
        "@functools.wraps(strict)\n"
        "def save(*arguments): pass\n"
        "def says(*arguments): pass\n"
        "says.__signature__ = 'nothing that a signature is'\n"
        "class Saver:\n"
        "    def __call__(self, cfg, trainer, model): pass\n"
        "instance = Saver()\n"
        "built_in = print\n",
    )
    for name in ("save", "says", "instance", "built_in"):
        assert callable(find_saver(f"wrapped:{name}"))


def test_check_address_looks_without_importing(project: Path) -> None:
    write(project, "never_imported", "raise SystemExit")
    check_address("never_imported:save", project)
    check_address("json:dumps", project)
    check_address("never_imported.below:save", project)
    with pytest.raises(UnknownSaverError, match="no module 'no_such_package'"):
        check_address("no_such_package.saving:save", project)


def test_command_ends_with_one_message(project: Path) -> None:
    write(project, "broken_command", "\n\nraise KeyError('x')")
    command = [sys.executable, "-m", "saver_conformance", "run", "--saver", "broken_command:save"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--modes", "full-single", "--profile", "smoke"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert 'broken_command.py", line 3' in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
