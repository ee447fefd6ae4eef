"""The recipes of ``docs/guides/ci-at-scale.md``: the commands and inputs that they use exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from saver_conformance import cli
from saver_conformance.cases.shards import Shard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "ci-at-scale.md").read_text()
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?<![\w`-])saver-conformance ([^#>\n]+)")
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def workflow() -> dict[str, Any]:
    [text] = [text for text in BLOCK.findall(PAGE) if text.startswith("# .github")]
    plain: dict[str, Any] = yaml.safe_load(text)
    return plain


def test_matrix_has_every_shard_and_a_report_of_its_own() -> None:
    job = workflow()["jobs"]["shard"]
    [judge] = [step for step in job["steps"] if "with" in step]
    assert set(judge["with"]) <= set(ACTION["inputs"])
    numbers = job["strategy"]["matrix"]["number"]
    shards = [
        Shard.parse(judge["with"]["shard"].replace("${{ matrix.number }}", str(number)))
        for number in numbers
    ]
    assert shards == [Shard(number, len(numbers)) for number in range(1, len(numbers) + 1)]
    assert "${{ matrix.number }}" in judge["with"]["report"]


def test_verdict_job_runs_whatever_the_shards_found_and_finds_their_reports() -> None:
    jobs = workflow()["jobs"]
    assert (jobs["verdict"]["needs"], jobs["verdict"]["if"]) == ("shard", "always()")
    assert jobs["shard"]["strategy"]["fail-fast"] is False
    [download] = [step for step in jobs["verdict"]["steps"] if "download" in step.get("uses", "")]
    [merge] = [step for step in jobs["verdict"]["steps"] if "Merge" in step.get("name", "")]
    assert download["with"]["path"] in merge["run"].split()


@pytest.mark.parametrize("command", COMMAND.findall("\n".join(BLOCK.findall(PAGE))))
def test_commands_of_the_page_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.json").write_text('{"mode": "lora-fsdp1"}')
    command = command.replace("$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT", "2/8").rstrip("\\ ")
    if command.count('"') % 2:  # it stands in quotes itself
        command = command.rstrip('"')
    words = ["case.json" if word == "-" else word for word in shlex.split(command)]
    cli.make_parser().parse_args(words)
