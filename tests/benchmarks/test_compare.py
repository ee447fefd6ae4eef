"""Whether the saver became slower between two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.compare import Row, compare
from tests.benchmarks.test_ratios import CELL, samples

SMALL = "single, 1 x, 8 MB"


def run(
    *, slow: float = 1, peer: float = 1, ranks: float = 1, tensors: float = 1
) -> dict[str, Any]:
    """A run in which the saver takes so many times as long, beside a peer that does."""
    cells = []
    for sample in [*samples(), *samples(cell=SMALL, peer="save_pretrained")]:
        name = sample["contestant"]
        factor = {"reference": slow, "gather": peer}.get(name, 1.0)
        timed = {key: sample[key] * factor for key in ("seconds", "durable_seconds")}
        cells.append(sample | timed)
    seconds = {"reference": [0.3 * ranks, 0.36 * ranks], "dcp.save": [0.2, 0.22]}
    many = {"kind": "plain", "tensors": 1000, "plan_seconds": 0.1, "save_seconds": 0.2 * tensors}
    return {
        "machine": {"cores": 2},
        "samples": cells,
        "many_ranks": [{"ranks": 8, "bytes": 1, "seconds": seconds}],
        "many": [many],
    }


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    return {row.name: row.verdict for row in compare(old, new)}


def test_compare_within_the_rounds_is_as_before() -> None:
    found = verdicts(run(), run(slow=1.15, ranks=1.1, tensors=1.1))
    assert set(found.values()) == {"as before"}
    policies = {f"{cell}, {policy}" for cell in (CELL, SMALL) for policy in POLICIES}
    plan, save = (f"plain, 1,000 tensors, {what}" for what in ("plan", "save"))
    assert set(found) == policies | {"8 ranks", plan, save}


POLICIES = ("with fsync", "without fsync")


def test_compare_beyond_the_rounds_is_slower_in_small_saves_too() -> None:
    found = verdicts(run(), run(slow=2, ranks=3, tensors=2))
    assert found.pop("plain, 1,000 tensors, plan") == "as before"
    assert set(found.values()) == {"slower"}
    back = verdicts(run(slow=2, ranks=3, tensors=2), run())
    assert back.pop("plain, 1,000 tensors, plan") == "as before"
    assert set(back.values()) == {"faster"}


def test_compare_is_not_misled_by_one_peer_that_became_faster() -> None:
    assert set(verdicts(run(), run(peer=0.2)).values()) == {"as before"}


def test_compare_of_two_machines_leaves_out_what_is_measured_once() -> None:
    elsewhere = run(tensors=5) | {"machine": {"cores": 64}}
    assert not any("tensors" in name for name in verdicts(run(), elsewhere))


def test_row_says_both_ranges() -> None:
    row = Row("8 ranks", "times the seconds of dcp.save", (1.0, 1.1, 1.2), (2.0, 2.5, 3.0))
    text = "8 ranks: 1.10 (1.00 to 1.20) before, 2.50 (2.00 to 3.00) now"
    assert str(row) == f"slower     {text}, times the seconds of dcp.save"


@pytest.mark.parametrize(("slow", "code"), [(1.0, 0), (2.0, 1)])
def test_main_compares_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], slow: float, code: int
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(run()))
    new.write_text(json.dumps(run(slow=slow)))
    assert main(["--compare", str(old), str(new)]) == code
    assert f"{4 if code else 0} of 7 rows became slower" in capsys.readouterr().out
    new.rename(tmp_path / "performance.json")
    assert main(["--output", str(tmp_path), "--compare", str(old)]) == code


def test_main_compares_nothing_is_no_success(tmp_path: Path) -> None:
    run_file = tmp_path / "run.json"
    run_file.write_text(json.dumps({"samples": []}))
    assert main(["--compare", str(run_file), str(run_file)]) == 1
