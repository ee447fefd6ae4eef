"""What several ranks hold alike they compare together, and what each says of it is right."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.helpers import damaged_folders as damaged
from tests.helpers import models, worlds
from tests.helpers.engines import wrap

from canonical_saver import Proof, prove, save_model
from canonical_saver.formats.layout import File, PlacedTensor
from canonical_saver.proving import comparison
from canonical_saver.proving.replica_samples import sampled
from canonical_saver.proving.shares import View, share, shared_parts
from canonical_saver.weights.engines.replica import Replica
from canonical_saver.weights.saved_tensors import direct
from canonical_saver.weights.tensors import LocalSlice, ModelTensor
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import packed, ranges

VALUES = "model.layers.1.self_attn.v_proj.weight"
"""Near the end of the file, so that the last rank compares it."""
BYTE = 12 * 32 * 4 + 2


def layout(rank: int, sizes: list[int]) -> list[File]:
    """Tensors that all ranks hold and rank 0 writes, and behind each one that rank 1 writes."""
    placed: list[PlacedTensor] = []
    offset = 0
    for number, size in enumerate(sizes):
        for own in (False, True):
            data = torch.zeros(size, dtype=torch.bfloat16)
            held = LocalSlice(0, size, data)
            writes = (held,) if rank == int(own) else ()
            replica = None if own else Replica("whole", held)
            tensor = ModelTensor((number, own), data.dtype, (size,), writes, replica=replica)
            saved = direct(f"{number}.{own}", tensor)
            placed.append(PlacedTensor(saved, data.dtype, offset))
            offset += placed[-1].size
    return [File("model.safetensors", b"", tuple(placed), offset)]


@pytest.mark.parametrize("able", [[0, 1], [0, 1, 2], [0, 2], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("sizes", [[1], [7, 1, 1000, 3], [100] * 9])
def test_share_of_all_ranks_tiles_the_files_evenly(able: list[int], sizes: list[int]) -> None:
    writes = [frozenset({"whole"} if rank == 0 else ()) for rank in range(5)]
    shares = [share(layout(r, sizes), {"whole": able}, r, writes[r]) for r in range(5)]
    prove_tiling(layout(0, sizes), [packed(ranges(one.items)) for one in shares])
    total = 2 * sum(sizes)
    lent = {rank: sum(item.size for item in one.lent) for rank, one in enumerate(shares)}
    assert not lent[0], "rank 0 writes them itself"
    for rank in able[1:]:
        assert abs(lent[rank] - total / len(able)) <= 2
    assert not any(lent[rank] for rank in range(5) if rank not in able)


def test_shared_parts_leaves_out_what_only_one_rank_can_vouch_for() -> None:
    def view(digest: bytes, *, writes: bool = False, sees: bool = True) -> View:
        return View(sees, {"whole": digest}, frozenset({"whole"} if writes else ()))

    first = view(b"1", writes=True)
    assert shared_parts([first, view(b"1"), view(b"1", sees=False)]) == {"whole": [0, 1]}
    assert not shared_parts([first, view(b"2")]), "drifted apart"
    assert not shared_parts([view(b"1", writes=True, sees=False), view(b"1"), view(b"1")])
    assert not shared_parts([first, first]), "two that write"
    assert not shared_parts([first, View(True, {}, frozenset())]), "only one holds it"


def test_sampled_sees_bits_at_both_ends_whatever_dtype_and_stride() -> None:
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool):
        data = torch.zeros(30, 50).to(dtype)
        (before,) = sampled([LocalSlice(0, data.numel(), data)])
        data[-1, -1] = 1
        (after,) = sampled([LocalSlice(0, data.numel(), data)])
        assert before != after
        turned = data.T.contiguous().T
        assert sampled([LocalSlice(0, data.numel(), turned)]) == [after]


def small_and_changed(rank: int, engine: str, folder: str) -> tuple[str, list[int]]:
    """Pickled proofs by what was changed on the last rank, and how many bytes each rank read."""
    root, last = Path(folder), dist.get_world_size() - 1
    if rank == 0:
        models.llama().save_pretrained(root / "right")
        damaged.flip(root / "right", root / "flipped", VALUES, BYTE)
    dist.barrier()
    found: dict[str, Proof] = {}
    model = models.llama()
    wrapped = wrap(engine, model)
    read: list[int] = []
    reading = vars(comparison)["read_into"]

    def counted(handle: int, offset: int, buffer: torch.Tensor) -> int:
        read.append(buffer.numel())
        count: int = reading(handle, offset, buffer)
        return count

    vars(comparison)["read_into"] = counted
    found["nothing"] = prove(wrapped, root / "right")
    vars(comparison)["read_into"] = reading
    found["flipped"] = prove(wrapped, root / "flipped")
    weight: Any = model.model.layers[1].self_attn.v_proj.weight
    local = weight.to_local() if engine == "hsdp" else weight
    with torch.no_grad():
        if rank == last:
            local.view(torch.int32)[-2, 5] ^= 1  # where no sample is taken
        found["one bit"] = prove(wrapped, root / "right")
        if rank == last:
            local.add_(1e-5)
        found["drifted"] = prove(wrapped, root / "right")
        if engine == "ddp":
            found["unwrapped"] = prove(model, root / "right")
            model.model.norm.weight.fill_(3 if rank == last else 1)
            found["unlike"] = prove(model, root / "right")
    return pickle.dumps(found).hex(), read


@pytest.mark.parametrize(("engine", "size"), [("ddp", 2), ("hsdp", 4)])
def test_prove_shares_replicas_and_names_those_that_differ(
    engine: str, size: int, tmp_path: Path
) -> None:
    everyone = worlds.run(size, small_and_changed, engine, str(tmp_path))
    proofs: list[dict[str, Proof]] = [pickle.loads(bytes.fromhex(one)) for one, _ in everyone]
    assert proofs == proofs[:1] * size, "the same on every rank"
    found = proofs[0]
    counts = [sum(read) for _, read in everyone]
    assert sum(counts) == found["nothing"].bytes
    assert max(counts) < 1.2 * min(counts), counts
    for name in ("nothing", "one bit", "drifted"):
        assert found[name].ok, str(found[name])
    assert not found["nothing"].drifted
    (one,) = found["flipped"].different
    assert (one.name, one.first, one.count) == (VALUES, BYTE, 1)
    assert one.ranks == (0 if engine == "ddp" else 1,), "the one that writes it"
    (text,) = found["one bit"].drifted
    assert f"'{VALUES}': the copy of rank {size - 1} differs from the one that is saved" in text
    assert found["one bit"].bytes == found["nothing"].bytes
    (text,) = found["drifted"].drifted
    assert f"most of all '{VALUES}' on rank {size - 1}" in text
    if engine == "ddp":
        assert found["unwrapped"].ok
        assert not found["unlike"].ok
        assert "'model.norm.weight': expected the bytes of rank 0" in found["unlike"].unlike[0]


def save_and_prove(rank: int, folder: str) -> bool:
    """A model whose statistics each rank keeps for itself."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    wrapped(torch.randn(8, 4) + rank)
    save_model(wrapped, folder)
    proof = prove(wrapped, folder)
    return proof.weights_ok and bool(proof.drifted)


def test_prove_own_statistics_of_ranks_are_no_differences(tmp_path: Path) -> None:
    assert worlds.run(2, save_and_prove, str(tmp_path / "m")) == [True, True]
