"""The script for machines with accelerators, tried on the CPU with small sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).parents[2]
SIZE = "300000"


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The script, as it is run elsewhere: this checkout alone makes the saver importable."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", SIZE]
    command += ["--large", SIZE, "--folder", str(folder / "saves"), "--output", str(folder)]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)


def test_script_on_the_cpu_runs_every_check_and_makes_its_page(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    found = {item["name"]: item["status"] for item in results["checks"]}
    assert list(found) == [check.__name__ for check in gpu.CHECKS]
    assert found.pop("allocator") == "not run"
    assert set(found.values()) == {"holds"}
    assert {name: len(values) for name, values in results["speed"]["seconds"].items()} == {
        "save": gpu.ROUNDS,
        "copy": gpu.ROUNDS,
        "disk": gpu.ROUNDS,
    }
    page = (tmp_path / "gpu.md").read_text()
    assert "| sharded | holds | 2 ranks, gloo: " in page
    assert "times as long" in page
    assert not any((tmp_path / "saves").iterdir())


def setting(tmp_path: Path) -> gpu.Setting:
    return gpu.Setting("cpu", tmp_path, int(SIZE), int(SIZE), ranks=1)


def test_check_that_finds_other_bytes_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(100))

    def other(model: object, folder: Path, **options: object) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(str(next(count)))

    monkeypatch.setattr(gpu, "save_model", other)
    outcome = gpu.run_check(gpu.bfloat16, setting(tmp_path), until=float("inf"))
    assert outcome.status == "broken"
    assert "model.safetensors" in outcome.detail


def test_proof_that_holds_for_everything_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ok:
        ok = True

    monkeypatch.setattr(gpu, "prove", lambda model, folder: Ok())
    outcome = gpu.run_check(gpu.proven, setting(tmp_path), until=float("inf"))
    assert (outcome.status, "found a proof" in outcome.detail) == ("broken", True)


def test_check_that_raises_or_comes_too_late_is_no_crash(tmp_path: Path) -> None:
    def fails(setting: gpu.Setting) -> str:
        raise RuntimeError("out of memory")

    outcome = gpu.run_check(fails, setting(tmp_path), until=float("inf"))
    assert (outcome.status, "out of memory" in outcome.detail) == ("broken", True)
    late = gpu.run_check(fails, setting(tmp_path), until=0.0)
    assert (late.status, late.detail) == ("not run", "the time was over")


def test_measure_without_room_says_so(tmp_path: Path) -> None:
    found = gpu.measure(gpu.Setting("cpu", tmp_path, 1, 10**18, 1), until=float("inf"))
    assert found["bytes"] == 0
    assert "bytes, found" in found["left_out"]
    results = {"date": "", "machine": "", "versions": [], "checks": [], "speed": found}
    assert "Not as planned" in gpu.make_page(results)
