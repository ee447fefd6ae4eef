"""What a save costs, what it imports, and its command line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.helpers import models

from canonical_saver import save_model
from canonical_saver.cli import main
from canonical_saver.publishing import staging


def in_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_nothing_optional() -> None:
    forbidden = "deepspeed bitsandbytes hypothesis pytest saver_conformance"
    code = f"""
        import sys
        for name in "{forbidden}".split():
            sys.modules[name] = None
        from canonical_saver import save_trained_model
        print([n for n in "{forbidden}".split() if sys.modules.get(n) is not None])
    """
    assert in_new_process(code).endswith("[]")


def test_recover_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", str(tmp_path / "missing")]) == 1
    assert main(["recover", str(tmp_path)]) == 0
    assert "nothing to recover" in capsys.readouterr().out
    (tmp_path / staging.STAGING).mkdir()
    assert main(["recover", str(tmp_path)]) == 0
    assert "was removed" in capsys.readouterr().out
    (tmp_path / staging.STAGING).symlink_to(tmp_path)
    assert main(["recover", str(tmp_path)]) == 1
    assert "please remove" in capsys.readouterr().err


def test_plan_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(models.llama(), tmp_path, max_shard_size="30KB")
    assert main(["plan", str(tmp_path), "--max-shard-size", "30KB"]) == 0
    printed = capsys.readouterr().out
    for path in tmp_path.glob("*.safetensors"):
        assert f"{path.stat().st_size:,} bytes  {path.name}" in printed
    assert main(["plan", str(tmp_path), "--max-shard-size", "some"]) == 1
    assert "max_shard_size" in capsys.readouterr().err
