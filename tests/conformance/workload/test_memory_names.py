"""Names in memory that differ from those on disk: a finding says which is which."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.checks import run
from saver_conformance.folder.layout import scan
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import Expectation, Observation, RankOutcome, Tensor
from saver_conformance.workload import expectation

CASE = Case(Mode("full", "single"), "mixtral")
VALUE = Tensor("F32", (1,), b"\x00" * 4)
EXPECTED = Expectation(
    tensors={"moe.0.w2": VALUE, "moe.1.w2": VALUE, "norm": VALUE},
    in_memory={"moe.0.w2": "mlp.down", "moe.1.w2": "mlp.down"},
)


def found(folder: Path, saved: dict[str, Tensor]) -> dict[str, list[str]]:
    """What TENSOR-001 and TENSOR-002 find, by tensor."""
    folder.mkdir()
    write(folder / "model.safetensors", saved)
    results = run(
        Observation(
            case=CASE,
            expected=EXPECTED,
            outcomes=(RankOutcome(0, "returned"),),
            folder=folder,
            before={},
            after=scan(folder),
            umask=0o022,
            reload=None,
        )
    )
    texts: dict[str, list[str]] = {}
    for clause in ("TENSOR-001", "TENSOR-002"):
        for item in results.ran[clause]:
            texts.setdefault(item.tensor or "", []).append(item.found)
    return texts


def test_a_tensor_saved_under_its_name_in_memory_is_told_as_that(tmp_path: Path) -> None:
    texts = found(tmp_path / "out", {"mlp.down": VALUE, "norm": VALUE})
    [missing] = texts["moe.0.w2"]
    assert "in memory it is mlp.down, and that is in the file" in missing
    [foreign] = texts["mlp.down"]
    assert "a name in memory" in foreign
    assert foreign.endswith("moe.0.w2, moe.1.w2")


def test_names_that_are_the_same_get_no_hint(tmp_path: Path) -> None:
    texts = found(tmp_path / "out", {"moe.0.w2": VALUE, "moe.1.w2": VALUE, "odd": VALUE})
    assert texts["norm"] == ["missing from model.safetensors"]
    assert texts["odd"] == ["a tensor that does not belong in the save"]


def test_a_tensor_that_is_nowhere_is_not_said_to_be_there(tmp_path: Path) -> None:
    [missing] = found(tmp_path / "out", {"norm": VALUE})["moe.0.w2"]
    assert "in memory it is mlp.down:" in missing


@pytest.mark.parametrize("names", [EXPECTED.in_memory, {}])
def test_the_names_go_with_the_expectation(names: dict[str, str], tmp_path: Path) -> None:
    sent = Expectation(tensors=EXPECTED.tensors, in_memory=names)
    expectation.write(tmp_path, sent, {"mlp.down": VALUE})
    assert expectation.read(tmp_path).in_memory == names
