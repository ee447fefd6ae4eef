"""The checks of the second save and of training on, on folders made by ``save_pretrained``."""

import shutil
from dataclasses import replace

import pytest
from fixtures.mutants.rewriting import change_tensors
from tests.conformance.checks.test_checks import FULL, observe, save_full

from saver_conformance.checks import run
from saver_conformance.folder.layout import scan
from saver_conformance.observation.observation import ControlRun, Difference, RankOutcome

CONTROLLED = replace(FULL, probe="control_run")
NORM = "model.norm.weight"


def judge(expected, first, second, **changes):
    control = ControlRun((RankOutcome(0, "returned"),), second, scan(second))
    seen = replace(observe(CONTROLLED, expected, first), control=replace(control, **changes))
    results = run(seen)
    return {
        clause: results.ran.get(clause, results.blocked.get(clause))
        for clause in ("PURITY-010", "PURITY-011", "PURITY-012")
    }


@pytest.fixture
def saves(tmp_path):
    """What was expected, and the folders of two equal saves."""
    expected = save_full(tmp_path / "first", max_shard_size=4000)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    return expected, tmp_path / "first", tmp_path / "second"


def file_of(folder, name):
    found = []
    for path in sorted(folder.glob("model*.safetensors")):
        change_tensors(path, lambda tensors, path=path: found.extend([path] * (name in tensors)))
    return found[0]


def test_two_equal_saves_are_right(saves):
    assert judge(*saves) == {"PURITY-010": (), "PURITY-011": (), "PURITY-012": ()}


def test_a_second_save_that_raises_is_told_and_ends_the_matter(saves):
    told = judge(*saves, outcomes=(RankOutcome(0, "raised", "why"),))
    (finding,) = told["PURITY-010"]
    assert (finding.rank, finding.found) == (0, "rank 0 raised: why")
    assert told["PURITY-011"] == told["PURITY-012"] == "rank 0 raised in the second save"


def test_other_bits_are_told_with_their_place(saves):
    path = file_of(saves[2], NORM)
    change_tensors(path, lambda tensors: tensors[NORM].add_(1))
    told = judge(*saves)
    (finding,) = told["PURITY-010"]
    assert (finding.tensor, finding.file, finding.dtype) == (NORM, path.name, "F32")
    (finding,) = told["PURITY-011"]
    entry = scan(saves[1])[path.name]
    described = f"file of {entry.size} bytes, mode {entry.mode:04o}, sha256 {entry.sha256[:12]}"
    assert finding.expected == f"as after the first save: {described}"


def test_a_file_of_one_save_alone_is_told(saves):
    (saves[2] / "more").write_text("x")
    (finding,) = judge(*saves)["PURITY-011"]
    assert finding.expected == "as after the first save: nothing"


def test_a_tensor_that_is_missing_is_told_once(saves):
    change_tensors(file_of(saves[2], NORM), lambda tensors: tensors.pop(NORM))
    (finding,) = judge(*saves)["PURITY-010"]
    assert (finding.tensor, finding.found) == (NORM, "it is missing")


def test_a_tensor_may_lie_in_another_file(saves):
    moved = {}
    change_tensors(file_of(saves[2], NORM), lambda tensors: moved.update({NORM: tensors.pop(NORM)}))
    other = next(path for path in saves[2].glob("model-*") if path != file_of(saves[1], NORM))
    change_tensors(other, lambda tensors: tensors.update(moved))
    assert judge(*saves)["PURITY-010"] == ()


def test_files_may_be_split_otherwise(tmp_path):
    expected = save_full(tmp_path / "first")
    save_full(tmp_path / "second", max_shard_size=4000)
    assert judge(expected, tmp_path / "first", tmp_path / "second")["PURITY-010"] == ()


def test_a_stale_file_in_both_is_not_taken_for_the_second_save(saves):
    for folder in saves[1:]:
        source = file_of(folder, NORM)
        shutil.copy(source, folder / "model-00099-of-00099.safetensors")
    change_tensors(
        saves[2] / "model-00099-of-00099.safetensors", lambda tensors: tensors[NORM].add_(1)
    )
    assert judge(*saves)["PURITY-010"] == ()


def test_training_that_does_not_go_on_alike_is_told(saves):
    difference = Difference(NORM, "00", "01", "F32", (16,), 0, 1)
    told = judge(*saves, step_error="a traceback", differences=(difference,))["PURITY-012"]
    assert [finding.found for finding in told] == ["a traceback", "01"]
