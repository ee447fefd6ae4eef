"""The distribution: one wheel, two packages that know nothing of each other."""

from __future__ import annotations

import ast
import email
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.helpers.verdicts import make_verdict

from saver_conformance.cases.case import MODES
from saver_conformance.reports.report_json import write_report

ROOT = Path(__file__).parents[2]
PACKAGES = {"canonical_saver": ROOT / "reference", "saver_conformance": ROOT / "conformance"}


def test_the_wheel_holds_both_packages_and_the_spec(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "canonical_saver/__init__.py",
        "canonical_saver/__init__.pyi",
        "canonical_saver/py.typed",
        "saver_conformance/__init__.py",
        "saver_conformance/py.typed",
        "saver_conformance/spec.md",
        "saver_conformance/reports/report.schema.json",
        "saver_conformance/reports/templates/page.html.j2",
        "saver_conformance/reports/templates/style.css",
    } <= names
    for package, source in PACKAGES.items():
        sources = {path.relative_to(source).as_posix() for path in (source / package).rglob("*.py")}
        assert {
            name for name in names if name.startswith(f"{package}/") and name[-3:] == ".py"
        } == (sources)
    folders = {name.partition("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)


def test_both_packages_import_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # The dependencies come from here, without what makes the checkout importable; the project
    # itself stands earlier on the path, in the new environment.
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    code = (
        "import canonical_saver, saver_conformance.spec, saver_conformance.cli\n"
        "from canonical_saver import save_trained_model\n"
        "assert saver_conformance.spec.SPEC\n"
        "print(canonical_saver.__file__, saver_conformance.__file__, sep='\\n')"
    )
    shown = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert all(Path(line).is_relative_to(site) for line in shown.stdout.splitlines())
    script = tmp_path / "env" / "bin" / "saver-conformance"
    listed = subprocess.run([script, "list", "modes"], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == [mode.name for mode in MODES]


TRAINING = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "deepspeed")


def test_judging_part_needs_no_library_that_trains(wheel: Path) -> None:
    base = [text for text in _requirements(wheel) if "extra ==" not in text]
    assert base
    assert not {Requirement(text).name for text in base} & set(TRAINING)
    trains = [text for text in _requirements(wheel) if "extra == 'saver'" in text]
    assert {"torch", "transformers"} <= {Requirement(text).name for text in trains}


def test_judging_part_checks_folders_and_writes_sites_without_torch(
    wheel: Path, tmp_path: Path
) -> None:
    """Nothing is there but the wheel, what its metadata asks for, and what that asks for."""
    place = tmp_path / "site-packages"
    place.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    for name in _closure([Requirement(text) for text in _requirements(wheel)]):
        _link(name, place)
    report = tmp_path / "report"
    write_report(make_verdict("package.module:save"), report)
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        # -S and -I: no other site-packages, and no checkout.
        start = f"import sys; sys.path.insert(0, {str(place)!r}); "
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"{start}{command[0]}", *command[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    main = "from saver_conformance.cli import main; main(sys.argv[1:])"
    checked = run(main, "check", str(folder))
    assert (checked.returncode, checked.stderr) == (1, "")
    assert "defects in the structure" in checked.stdout
    written = run(main, "site", str(report), "--out", "site")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    listed = run(main, "list", "axes")
    assert listed.returncode == 0, listed.stderr
    lacking = run("import canonical_saver")
    assert lacking.returncode == 1
    assert "needs torch and transformers; pip install 'canonical-saver[saver]'" in lacking.stderr


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        head = email.message_from_bytes(archive.read(name))
    return head.get_all("Requires-Dist", [])


def _closure(requirements: list[Requirement]) -> set[str]:
    """The names of the distributions that some need, and that these need, without extras."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        wanted = waiting.pop()
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if needed and wanted.name not in found:
            found.add(wanted.name)
            waiting += [Requirement(text) for text in metadata.requires(wanted.name) or ()]
    return found


def _link(distribution: str, place: Path) -> None:
    """Make the files of an installed distribution importable from ``place``."""
    for path in metadata.files(distribution) or ():
        top = path.parts[0]
        if top != ".." and not (place / top).exists():
            (place / top).symlink_to(metadata.distribution(distribution).locate_file(top))


@pytest.mark.parametrize(
    ("package", "other"),
    [("canonical_saver", "saver_conformance"), ("saver_conformance", "canonical_saver")],
)
def test_neither_package_imports_the_other(package: str, other: str) -> None:
    """A judge that shares code with the judged is blind to shared mistakes."""
    for path in (PACKAGES[package] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            assert other not in {name.partition(".")[0] for name in imported}, path


@pytest.mark.parametrize(
    ("first", "modules", "absent"),
    [
        (
            "peft",  # which itself loads bitsandbytes where it is installed
            "canonical_saver",
            {"saver_conformance", "deepspeed", "bitsandbytes", "hypothesis", "pytest", "rich"},
        ),
        ("os", "saver_conformance.run, saver_conformance.workload.prepare", {"canonical_saver"}),
    ],
)
def test_importing_a_package_does_not_load_the_other(
    first: str, modules: str, absent: set[str]
) -> None:
    code = (
        f"import sys, {first}\nbefore = set(sys.modules)\nimport {modules}\n"
        "print(*{name.partition('.')[0] for name in sys.modules.keys() - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not absent & set(done.stdout.split())
