"""The arithmetic of the bench, and the page made of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.cells import FULL, Cell
from benchmarks.ratios import summarize
from benchmarks.targets import LIMITED, explain, judge
from benchmarks.worlds import Sample, turns

from benchmarks import page

CELL = "fsdp2, 2 x, 2 GB"


def samples(
    *, cell: str = CELL, slow: float = 1, peer: str = "gather", memory: int = 0
) -> list[dict[str, Any]]:
    found = []
    phases = {"weights": 0.1, "publish": 0.05}
    for number, noise in enumerate((1.0, 1.1, 0.9)):
        for name, durable, seconds in (
            ("reference", True, 2.0),
            ("limit", True, 1.9),
            ("reference", False, 1.0),
            ("limit", False, 0.8),
            ("one_file", True, 1.95),
            ("one_file", False, 0.9),
            (peer, False, 4.0 * slow),
        ):
            took = seconds * noise
            found.append(
                asdict(
                    Sample(
                        cell=cell,
                        contestant=name,
                        round=number,
                        durable=durable,
                        bytes=1000,
                        seconds=took,
                        durable_seconds=took if durable else took + noise,
                        memory=(0, memory),
                        written=1010,
                        phases=phases | {"write": took / 2} if name == "reference" else {},
                    )
                )
            )
    return found


def test_ratios_are_of_all_pairs_of_rounds_and_of_the_same_policy() -> None:
    found = {(s.contestant, s.durable): s for s in summarize(samples())}
    least, greatest = 0.9 / 1.1, 1.1 / 0.9
    for key, ratio in (
        (("limit", False), 0.8),
        (("limit", True), 0.95),
        (("gather", False), 4),
        # A peer's one save gives both times: what it took, and until all was on the disk.
        (("gather", True), 2.5),
    ):
        assert found[key].ratio == pytest.approx((ratio * least, ratio, ratio * greatest))
    assert found["gather", True].rounds == 3
    assert found["reference", False].seconds == 1


def test_a_peer_in_few_rounds_is_compared_with_all_of_the_references() -> None:
    few = [s for s in samples() if s["contestant"] != "gather" or s["round"] == 0]
    found = {(s.contestant, s.durable): s for s in summarize(few)}
    assert found["gather", False].ratio == pytest.approx((4 / 1.1, 4, 4 / 0.9))
    assert found["gather", False].rounds == 1


def test_each_round_begins_with_the_next_and_peers_come_in_some_only() -> None:
    cell = Cell("fsdp2", 2, 1000, 3, 2, explained=True)
    rounds = [[(name, durable) for name, _, durable in turns(cell, n)] for n in range(3)]
    assert [each[0] for each in rounds] == [
        ("reference", True),
        ("limit", True),
        ("one_file", True),
    ]
    assert set(rounds[0]) == set(rounds[1]) > {("gather", False), ("consolidating", False)}
    assert set(rounds[2]) == {(n, d) for n in ("reference", "limit", "one_file") for d in (0, 1)}
    assert [len(each) for each in rounds] == [9, 9, 6]
    other = Cell("fsdp2", 2, 1000, 1, 0)
    assert {name for name, _, _ in turns(other, 0)} == {"reference", "limit"}


def test_what_explains_a_miss_is_measured_where_time_is_judged() -> None:
    judged = {cell for cell in FULL if cell.name in LIMITED or cell.engine == "single"}
    assert {cell for cell in FULL if cell.explained} == judged
    assert set(LIMITED) < {cell.name for cell in judged}


def test_targets_are_judged_by_the_numbers() -> None:
    found = {v.target: v for v in judge(summarize(samples(memory=100 * 2**20)))}
    assert found["at least 3 times faster than gather, without fsync"].holds
    assert not found["at least 3 times faster than gather, with fsync"].holds
    assert not found["at most 1.10 times the limit, without fsync"].holds
    assert found["at most 1.10 times the limit, with fsync"].holds
    assert found["bytes written at most 1.01 times the model's, without fsync"].holds
    assert not found["extra memory at most 64 MiB on any rank"].holds


def test_a_slower_single_process_and_a_late_small_one_are_told() -> None:
    wrong = summarize(samples(cell="single, 1 x, 8 MB", slow=0.2, peer="save_pretrained"))
    (late,) = (v for v in judge(wrong) if "20 ms" in v.target)
    assert late.found == "+200.0 ms"
    assert not late.holds


def test_a_missed_limit_is_explained_by_phases_and_by_what_one_file_takes() -> None:
    text, _ = explain(summarize(samples()))
    assert text.startswith(f"{CELL}, without fsync: of the saver's 1.000 s (0.900 to 1.100), 0.500")
    assert "place in memory, take 0.900 s (0.810 to 0.990); limit of the disk takes 0.800" in text
    assert "0.050 s are renames" in text
    assert "with fsync they are 0.050 s" in text
    assert text.endswith("takes 0.450 s.")


def test_where_others_are_not_so_much_slower_it_is_told_what_the_disk_allows() -> None:
    _, text = explain(summarize(samples()))
    assert text == (
        f"{CELL}, with fsync: gather + save_file takes 5.000 s (4.500 to 5.500), the limit of the "
        "disk is 1.900 s (1.710 to 2.090): a saver as fast as the disk would be 2.6 times faster, "
        "not 3; this one is 2.5 times faster."
    )
    assert len(explain(summarize(samples(slow=1.3)))) == 1


@pytest.mark.parametrize(("slow", "holds"), [(0.225, False), (0.255, True)])
def test_a_single_process_is_held_to_save_pretrained_with_fsync_too(
    slow: float, holds: bool
) -> None:
    large = [
        sample | {"bytes": 10**9}
        for sample in samples(cell="single, 1 x, 1 GB", slow=slow, peer="save_pretrained")
    ]
    found = {v.target: v.holds for v in judge(summarize(large)) if "slower" in v.target}
    assert found == {
        "no slower than save_pretrained, without fsync": holds,
        "no slower than save_pretrained, with fsync": holds,
    }


def test_a_single_process_that_is_late_is_explained_too() -> None:
    late = samples(cell="single, 1 x, 1 GB", slow=0.2, peer="save_pretrained")
    durable, text = explain(summarize([sample | {"bytes": 10**9} for sample in late]))
    assert durable.startswith("single, 1 x, 1 GB, with fsync: of the saver's 2.000 s")
    assert text.startswith("single, 1 x, 1 GB, without fsync: of the saver's 1.000 s")
    assert "save_pretrained takes 0.800 s (0.720 to 0.880)" in text


def test_page_and_plots_are_made_of_the_json_alone(tmp_path: Path) -> None:
    results = {
        "date": "2020-01-02",
        "machine": {
            "cores": 2,
            "memory": 2**34,
            "kernel": "6",
            "file_system": "ext4",
            "versions": ["torch 2"],
        },
        "minutes": 3.0,
        "left_out": ["single, 1 x, 4 GB: the time was over"],
        "many": [
            {
                "kind": "plain",
                "tensors": 1000,
                "plan_seconds": 0.1,
                "save_seconds": 0.5,
                "memory": 2**20,
                "bytes": 1,
            }
        ],
        "many_ranks": [
            {"ranks": 8, "bytes": 1, "seconds": {"reference": [0.2, 0.4], "dcp.save": [0.1]}}
        ],
        "predicted": [{"cell": CELL, "imbalance": 1.5}],
        "samples": samples(),
    }
    pytest.importorskip("matplotlib", reason="the page's plots are drawn with matplotlib")
    page.write(results, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert f"| {CELL} | 1.500 | 2.850 | 2.000 | 0.70 |" in text
    assert "- single, 1 x, 4 GB: the time was over" in text
    assert "| gather + save_file | 5.00 (4.00) | 0 MiB |  |  |" in text
    assert f"| {CELL}, with fsync | 0.100 | 0.050 | 1.000 | 2.000 |" in text
    assert "| plain | 1,000 | 0.10 | 0.50 | 500 | 1 | 1,049 |" in text
    assert "| 8 | 0.30 | 0.10 | 3.00 (2.00 to 4.00) |" in text
    assert (tmp_path / "performance.svg").read_text().startswith("<?xml")
    assert (tmp_path / "performance.png").stat().st_size


def test_a_cell_that_is_left_out_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any, **__: Any) -> dict[str, Any]:
        return {"left_out": ["x"], "samples": []}

    monkeypatch.setattr("benchmarks.__main__._measure", measured)
    monkeypatch.setattr(page, "write", lambda *_: None)
    assert main(["--output", str(tmp_path)]) == 1
