"""The reports of all shards, merged, are the report of a run in one piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from saver_conformance.cases.case import Mode
from saver_conformance.cases.shards import Shard
from saver_conformance.claims import Claim
from saver_conformance.errors import ResultError, ShardError
from saver_conformance.execution.workload import Workload
from saver_conformance.reports.merge import merge
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.result import read_report
from saver_conformance.run import run_conformance
from saver_conformance.verdict.waivers import Waiver

ROOT = Path(__file__).parents[3]
FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
MODES = (Mode("full", "single"), Mode("lora", "single"))
WAIVER = Waiver("FILES-001", "full-*", "known", "https://example.org/1")
UNNEEDED = Waiver("RANKS-001", "full-single", "known", "https://example.org/2")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def judge(function: str, report: Path, **options: Any) -> int:
    verdict = run_conformance(
        f"tests.helpers.fake_savers:{function}",
        modes=MODES,
        profile="smoke",
        report=report,
        workload=WORKLOAD,
        **options,
    )
    return verdict.exit_code


def judge_in_parts(function: str, folder: Path, parts: int, **options: Any) -> list[Path]:
    reports = [folder / f"part-{number}" for number in range(1, parts + 1)]
    for number, report in enumerate(reports, start=1):
        judge(function, report, shard=Shard(number, parts), **options)
    return reports


def comparable(folder: Path) -> Mapping[str, Any]:
    """A report without the times."""
    plain = dict(read_report(folder / "report.json"))
    plain["totals"] = {**plain["totals"], "seconds": 0}
    plain["environment"] = {**plain["environment"], "time": ""}
    text = json.dumps({**plain, "cases_a_minute": None, "seconds_by_step": None})
    return json.loads(text)  # type: ignore[no-any-return]


CLAIM = Claim("", without=("META-*",), only={"max_shard_size": [None]})


@pytest.mark.parametrize(
    ("function", "shards", "options"),
    [
        ("raises_everywhere", 2, {}),
        ("save", 3, {"waivers": (WAIVER, UNNEEDED), "claims": CLAIM}),
    ],
    ids=["raises", "findings, waivers and claims"],
)
def test_merge_all_shards_is_the_run_in_one_piece(
    function: str, shards: int, options: Any, tmp_path: Path
) -> None:
    code = judge(function, tmp_path / "whole", **options)
    parts = judge_in_parts(function, tmp_path, shards, **options)
    verdict, environment = merge(reversed(parts))
    write_report(verdict, tmp_path / "merged", environment)
    assert verdict.exit_code == code == 1
    assert comparable(tmp_path / "merged") == comparable(tmp_path / "whole")


def test_shard_of_too_many_raises_before_a_rank_starts(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="7 shards of 6 planned cases"):
        judge("save", tmp_path / "report", shard=Shard(1, 7))
    with pytest.raises(ShardError, match="no plan"):
        run_conformance(profile="explore", shard=Shard(1, 2), workload=WORKLOAD)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return judge_in_parts("save", tmp_path_factory.mktemp("parts"), 3)


def test_shard_report_names_its_part_and_claims_no_whole(parts: list[Path]) -> None:
    plain = [read_report(part / "report.json") for part in parts]
    assert [item["shard"]["number"] for item in plain] == [1, 2, 3]
    assert sum(len(item["shard"]["records"]) for item in plain) == 6
    assert all(item["shard"]["modes"] == ["full-single", "lora-single"] for item in plain)
    assert "in shard 1/3 alone" in (parts[0] / "summary.md").read_text()


def alter(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a report in which something is another."""
    plain = json.loads((source / "report.json").read_text())
    change(plain)
    target.mkdir()
    (target / "report.json").write_text(json.dumps(plain))
    return target


def set_versions(plain: dict[str, Any]) -> None:
    plain["environment"]["versions"]["torch"] = "1.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(saver="other:save"), "differ in the saver"),
        (lambda plain: plain.update(spec_version="0.1+0"), "differ in the spec version"),
        (lambda plain: plain.update(case_set="0" * 16), "differ in the case set"),
        (lambda plain: plain.update(profile="gate"), "differ in the profile"),
        (lambda plain: plain["shard"].update(of=4), "differ in the number of shards"),
        (lambda plain: plain["shard"].update(without=["META-*"]), "has no part in"),
        (lambda plain: plain["shard"].update(modes=["full-single"]), "differ in the modes"),
        (set_versions, r"differ in the library versions; .*torch [^1].*torch 1\.0"),
        (lambda plain: plain["shard"]["records"].pop(), "expected the cases of the set"),
        (lambda plain: plain["shard"].update(number=1), "shard 1/3 is there twice"),
        (lambda plain: plain.update(shard=None), "the report of a whole run"),
    ],
)
def test_merge_reports_of_other_runs_are_refused(
    change: Callable[[dict[str, Any]], None], message: str, parts: list[Path], tmp_path: Path
) -> None:
    altered = alter(parts[2], tmp_path / "altered", change)
    with pytest.raises(ShardError, match=message):
        merge([*parts[:2], altered])


def test_merge_missing_shards_are_named(parts: list[Path]) -> None:
    with pytest.raises(ShardError, match="no report of shard 1, 3"):
        merge([parts[1]])


def test_merge_every_report_of_another_spec_is_refused(parts: list[Path], tmp_path: Path) -> None:
    altered = [
        alter(part, tmp_path / part.name, lambda plain: plain.update(spec_version="0.9+12345678"))
        for part in parts
    ]
    with pytest.raises(ShardError, match=r"of the spec 0\.9\+12345678"):
        merge(altered)


def test_merge_case_of_another_version_is_refused(parts: list[Path], tmp_path: Path) -> None:
    altered = alter(
        *(parts[0], tmp_path / "altered"),
        lambda plain: plain["shard"]["records"][0]["case"].update(unheard_of=1),
    )
    with pytest.raises(ShardError, match="cannot be read by this version"):
        merge([altered, *parts[1:]])


def test_merge_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no report"):
        merge([tmp_path])
