"""Who writes what, and the proof that nothing is missed, against the plainest way to say it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canonical_saver.errors import VerifyError
from canonical_saver.formats.layout import File, PlacedTensor
from canonical_saver.formats.safetensors import safetensors_file
from canonical_saver.weights.saved_tensors import SavedTensor, SourceRange
from canonical_saver.weights.tensors import PIECE, LocalSlice, ModelTensor, elements
from canonical_saver.writing import tiling
from canonical_saver.writing import write_items as planning
from canonical_saver.writing.computed_tensors import groups_to_compute


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[File], list[list[LocalSlice]], int]:
    """A file whose tensors are ranges of one source, and the runs of each of three ranks."""
    count = draw(st.integers(1, 40))
    data = torch.arange(count, dtype=torch.int32)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=6)))
    bounds = [0, *cuts, count]
    owners = draw(st.lists(st.integers(0, 2), min_size=len(bounds), max_size=len(bounds)))
    held: list[list[LocalSlice]] = [[], [], []]
    for start, stop, owner in zip(bounds, bounds[1:], owners, strict=False):
        if start < stop:
            held[owner].append(LocalSlice(start, stop - start, data, start))
    source = ModelTensor(
        "x", torch.int32, (count,), tuple(run for slices in held for run in slices)
    )
    saved_tensors = []
    marks = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=5))})
    for start, stop in pairwise(marks):
        name = f"t{draw(st.integers(0, 9))}.{start}"
        saved_tensors.append(
            SavedTensor(
                name, torch.int32, (stop - start,), (SourceRange(0, stop - start, source, start),)
            )
        )
    if draw(st.booleans()):  # saved under a second name as well
        saved_tensors.append(
            SavedTensor("again", torch.int32, (count,), (SourceRange(0, count, source, 0),))
        )
    return [safetensors_file("f", saved_tensors, None)], held, count


def planned_by(files: list[File], slices: list[LocalSlice]) -> list[planning.WriteItem]:
    return planning.write_items(files, lambda _: slices)


@given(layouts())
@settings(max_examples=200, deadline=None)
def test_the_parts_of_all_ranks_make_the_file(
    drawn: tuple[list[File], list[list[LocalSlice]], int],
) -> None:
    files, held, _ = drawn
    written = bytearray(files[0].header) + bytearray(files[0].size - len(files[0].header))
    everyone = []
    for slices in held:
        planned = planned_by(files, slices)
        everyone.append(planning.packed(planning.ranges(planned)))
        for batch in planning.batches(planned):
            data = b"".join(bytes(elements(*part).tolist()) for part in batch.parts)
            assert len(data) == batch.size
            written[batch.offset : batch.offset + batch.size] = data
    for placed in files[0].tensors:
        found = torch.frombuffer(
            written, dtype=torch.int32, offset=placed.offset, count=placed.size // 4
        )
        (source_range,) = placed.saved.source_ranges or ()
        assert found.tolist() == list(
            range(source_range.offset, source_range.offset + source_range.length)
        )
    tiling.prove_tiling(files, everyone)
    whole = planning.write_items(files)
    assert sum(t.size for t in whole) == files[0].size - len(files[0].header)


@given(layouts(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_missing_or_doubled_byte_is_found(
    drawn: tuple[list[File], list[list[LocalSlice]], int], data: st.DataObject
) -> None:
    files, held, _ = drawn
    everyone = [planning.ranges(planned_by(files, slices)) for slices in held]
    rank = data.draw(st.sampled_from([n for n, found in enumerate(everyone) if found]))
    number = data.draw(st.integers(0, len(everyone[rank]) - 1))
    file, offset, size = everyone[rank][number]
    wrong = data.draw(
        st.sampled_from(
            [
                [],
                [(file, offset, size - 1)],
                [(file, offset + 1, size - 1)],
                [(file, offset - 1, size + 1)],
                [(file, offset, size + 1)],
                [(file, offset, size), (file, offset, 1)],
            ]
        )
    )
    everyone[rank][number : number + 1] = wrong
    with pytest.raises(VerifyError, match=r"a gap|an overlap|outside of every"):
        tiling.prove_tiling(files, [planning.packed(found) for found in everyone])


def test_neighbours_make_one_batch_and_a_large_tensor_several() -> None:
    large = torch.zeros(2 * PIECE // 4 + 3)
    model_tensors = [
        ModelTensor(n, torch.float32, (5,), (LocalSlice(0, 5, torch.zeros(5)),))
        for n in range(1500)
    ]
    model_tensors.append(
        ModelTensor("z", torch.float32, tuple(large.shape), (LocalSlice(0, len(large), large),))
    )
    saved_tensors = [
        SavedTensor(f"{n:05}", torch.float32, s.shape, (SourceRange(0, s.numel, s, 0),))
        for n, s in enumerate(model_tensors)
    ]
    file = safetensors_file("f", saved_tensors, torch.bfloat16)
    found = list(planning.batches(planning.write_items([file])))
    assert [len(batch.parts) for batch in found[:2]] == [1024, 477]
    assert sum(batch.size for batch in found) == file.size - len(file.header)
    assert max(batch.size for batch in found) <= PIECE // 2
    assert len(found) == 4


def computed(name: str, needs: set[str]) -> PlacedTensor:
    return PlacedTensor(
        SavedTensor(name, torch.float32, (1,), None, frozenset(needs)), torch.float32, 0
    )


def test_tensors_that_share_a_source_are_computed_together() -> None:
    tensors = [
        computed("a", {"1", "2"}),
        computed("b", {"3"}),
        computed("c", {"4", "5"}),
        computed("d", {"2", "4"}),
        computed("e", {"3"}),
    ]
    groups = groups_to_compute([File("f", b"", tuple(tensors), 0)])
    assert [[p.saved.name for _, p in group] for group in groups] == [["a", "c", "d"], ["b", "e"]]
