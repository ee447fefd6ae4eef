"""What two reports say about a change: only what both runs checked has broken or been fixed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance import cli
from saver_conformance.errors import ResultError
from saver_conformance.reports import report_diff_text
from saver_conformance.reports.report_diff import (
    Changes,
    History,
    Kind,
    compare,
    compare_collections,
)
from saver_conformance.reports.report_json import to_result, write_report
from saver_conformance.reports.result import Result
from saver_conformance.verdict.waivers import Waiver

SINGLE, ZERO3, LORA = CLAIMED
WAIVER = Waiver("FILES-010", "full-single", "known", "https://example.org/1")


def result(
    broken: tuple[str, ...] = (),
    unchecked: tuple[str, ...] = (),
    waivers: tuple[Waiver, ...] = (),
    saver: str = "pkg:save",
) -> Result:
    record = make_record(SINGLE, broken=broken, unchecked=unchecked)
    return to_result(make_verdict(saver, [record], waivers=waivers))


def kinds(changes: Changes) -> dict[str, Kind]:
    return {item.clause.id: item.kind for item in changes.changes}


def test_compare_equal_runs_has_no_change() -> None:
    found = compare(result(), result())
    assert found.changes == ()
    assert not found.has_broken
    assert found.notes == ()


@pytest.mark.parametrize(
    ("old", "new", "kind", "broke"),
    [
        (result(), result(broken=("TENSOR-001",)), "broke", True),
        (result(broken=("TENSOR-001",)), result(), "fixed", False),
        (result(unchecked=("TENSOR-001",)), result(broken=("TENSOR-001",)), "newly checked", False),
        (result(unchecked=("TENSOR-001",)), result(), "newly checked", False),
        (result(broken=("TENSOR-001",)), result(unchecked=("TENSOR-001",)), None, False),
        (result(), result(unchecked=("TENSOR-001",)), "no longer checked", False),
    ],
)
def test_compare_one_clause(old: Result, new: Result, kind: Kind | None, broke: bool) -> None:
    found = compare(old, new)
    assert kinds(found).get("TENSOR-001") == (kind or "no longer checked")
    assert found.has_broken is broke
    [change] = [item for item in found.changes if item.clause.id == "TENSOR-001"]
    assert change.modes == ("full-single",)


def test_compare_should_that_breaks_only_deviates() -> None:
    found = compare(result(), result(broken=("FILES-010",)))
    level = found.new.clauses["FILES-010"].level
    assert (level, kinds(found)["FILES-010"], found.has_broken) == (
        ("MUST", "broke", True) if level == "MUST" else ("SHOULD", "deviates", False)
    )


def test_compare_waived_breach_is_told_and_breaks_nothing() -> None:
    found = compare(result(), result(broken=("FILES-010",), waivers=(WAIVER,)))
    assert kinds(found)["FILES-010"] == "broke"
    assert not found.has_broken
    again = compare(result(broken=("FILES-010",), waivers=(WAIVER,)), result())
    assert kinds(again)["FILES-010"] == "fixed"


def test_compare_mode_of_one_run_alone_is_newly_or_no_longer_checked() -> None:
    fewer = to_result(make_verdict("pkg:save", modes=(SINGLE,)))
    more = to_result(make_verdict("pkg:save", [make_record(LORA, broken=("ADAPTER-001",))]))
    gained, lost = compare(fewer, more), compare(more, fewer)
    assert {item.kind for item in gained.changes} == {"newly checked"}
    assert {item.kind for item in lost.changes} == {"no longer checked"}
    assert not gained.has_broken


def test_compare_notes_name_what_else_differs() -> None:
    old, new = result(), result()
    old = replace(old, versions={"peft": "0.20", "torch": "2.13"}, spec_version="0.1+a")
    new = replace(new, versions={"peft": "0.21", "torch": "2.13"}, case_set="b", profile="gate")
    notes = compare(old, new).notes
    assert "versions: peft 0.20 to 0.21" in notes
    assert any(note.startswith("spec: 0.1+a to") for note in notes)
    assert "profile: smoke to gate" in notes
    assert any(note.startswith("cases: another set") for note in notes)


def test_compare_shard_is_refused() -> None:
    with pytest.raises(ResultError, match="merge the shards first"):
        compare(result(), replace(result(), shard="1/3"))


def test_compare_collections_pairs_by_saver() -> None:
    old = [result(saver="a:save"), result(saver="b:save")]
    new = [result(saver="b:save", broken=("TENSOR-001",)), result(saver="c:save")]
    history = compare_collections(old, new)
    assert [pair.new.saver for pair in history.pairs] == ["b:save"]
    assert [item.saver for item in history.added] == ["c:save"]
    assert [item.saver for item in history.removed] == ["a:save"]
    assert history.has_broken
    with pytest.raises(ResultError, match="two reports of a:save"):
        compare_collections([*old, old[0]], new)


@pytest.mark.parametrize("render", [report_diff_text.plain, report_diff_text.markdown])
def test_text_of_changes_tells_modes_and_evidence(render) -> None:
    old = result(broken=("RELOAD-001",))
    new = result(broken=("TENSOR-001",), unchecked=("TENSOR-006",))
    text = render(History((compare(old, new),), (result(saver="n:new"),), (result(saver="o:old"),)))
    for part in ("TENSOR-001 (MUST)", "full-single", "expected", "replay", "n:new", "o:old"):
        assert part in text
    assert "1 broke, 1 fixed, 1 no longer checked" in text


@pytest.mark.slow
def test_command_compare_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(make_verdict("pkg:save"), tmp_path / "good")
    record = make_record(SINGLE, broken=("TENSOR-001",))
    write_report(make_verdict("pkg:save", [record]), tmp_path / "bad")

    def call(*arguments: object) -> object:
        with pytest.raises(SystemExit) as end:
            cli.main(["compare", *map(str, arguments)])
        return end.value.code

    assert call(tmp_path / "good", tmp_path / "good") == 0
    assert call(tmp_path / "good", tmp_path / "bad", "--markdown") == 1
    assert "## `pkg:save`: something broke" in capsys.readouterr().out
    assert call(tmp_path / "bad", tmp_path / "good") == 0
    (tmp_path / "none").mkdir()
    assert call(tmp_path / "good", tmp_path / "none") == 3
    (tmp_path / "none" / "report.json").write_text(json.dumps({"version": 2}))
    assert call(tmp_path / "good", tmp_path / "none") == 3
