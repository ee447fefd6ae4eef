"""Statistics that training changes beside an adapter may be saved or left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.workload import expectation, prepare

STATISTICS = {
    f"base_model.model.statistics.batch_norm.{name}"
    for name in ("running_mean", "running_var", "num_batches_tracked")
}


@pytest.mark.parametrize(("mode", "optional"), [("lora-single", True), ("full-single", False)])
def test_expectation_of_an_adapter_allows_what_training_changed(
    tmp_path: Path, mode: str, optional: bool
) -> None:
    case = make_case(Mode.parse(mode), {"architecture": "batch-norm"})
    folder = tmp_path / "case"
    folder.mkdir()
    prepare.prepare(case, folder).close()
    expected = expectation.read(folder)
    assert (expected.optional == STATISTICS) is optional
    plain = {name.removeprefix("base_model.model.") for name in STATISTICS}
    assert (plain <= set(expected.tensors)) is not optional
