"""Copies of weights are found by their bytes, and names of temporary files by their form."""

from __future__ import annotations

import os

import pytest

from saver_conformance.folder.temporary_names import looks_temporary
from saver_conformance.folder.weight_copies import SAMPLE, find_copies
from saver_conformance.observation.observation import Tensor

TENSORS = {f"w{number}": Tensor("F32", (64,), os.urandom(256)) for number in range(4)}
ZEROS = Tensor("F32", (64,), bytes(256))
SMALL = Tensor("F32", (4,), os.urandom(16))


def write(path, *tensors):
    path.write_bytes(b"head" + b"|".join(bytes(tensor.data) for tensor in tensors))
    return path


def test_find_copies_whole_model_in_any_format_is_named(tmp_path):
    file = write(tmp_path / "a", *TENSORS.values())
    other = write(tmp_path / "b", ZEROS)
    assert find_copies(TENSORS, [file, other]) == {file: list(TENSORS)}


def test_find_copies_parts_of_tensors_in_several_files_are_a_copy(tmp_path):
    first = tmp_path / "a"
    first.write_bytes(b"".join(tensor.data[:100] for tensor in TENSORS.values()))
    second = write(tmp_path / "b", TENSORS["w3"])
    assert find_copies(TENSORS, [first, second]) == {first: list(TENSORS), second: ["w3"]}


def test_find_copies_one_of_many_tensors_is_none(tmp_path):
    assert find_copies(TENSORS, [write(tmp_path / "a", TENSORS["w1"])]) == {}


def test_find_copies_tensors_without_bytes_of_their_own_are_none(tmp_path):
    file = write(tmp_path / "a", ZEROS, SMALL)
    assert find_copies({"zeros": ZEROS, "small": SMALL}, [file]) == {}


def test_find_copies_of_a_large_model_looks_for_some_of_its_tensors(tmp_path):
    many = {str(number): Tensor("F32", (16,), os.urandom(64)) for number in range(5 * SAMPLE)}
    (found,) = find_copies(many, [write(tmp_path / "a", *many.values())]).values()
    assert len(found) == SAMPLE
    assert len({int(name) // 5 for name in found}) == SAMPLE


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.tmp", True),
        (".out-3f2a", True),
        ("out_old", True),
        ("tmp8x2k", True),
        ("model.partial", True),
        ("out", False),
        ("outlook", False),
        ("out.log", False),
        ("out.lock", False),
        (".cache", False),
        ("trainer", False),
        ("checkpoint-3", False),
    ],
)
def test_looks_temporary_tells_by_the_name(name, said):
    assert looks_temporary(name, "out") is said
