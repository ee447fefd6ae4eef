"""The digest of a model: by its definition, by its test vectors, and the same from every side."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tests.helpers import models, worlds
from tests.helpers.engines import wrap
from tests.reference.formats.test_formats import Odd

from canonical_saver import RequestError, save_model
from canonical_saver.cli import main
from canonical_saver.proving.folder_digest import digest_folder
from canonical_saver.writing.model_digest import (
    digests_json,
    leaf,
    model_digest,
    pieces,
    tensor_digest,
    tree,
)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "digest.md"


def by_definition(digests: list[bytes]) -> bytes:
    """The root as RFC 6962 defines it, by recursion."""
    if len(digests) < 2:
        return digests[0] if digests else hashlib.sha256(b"").digest()
    half = 1
    while half * 2 < len(digests):
        half *= 2
    left, right = by_definition(digests[:half]), by_definition(digests[half:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("count", range(20))
def test_tree_is_that_of_rfc_6962(count: int) -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(count)]
    assert tree(digests) == by_definition(digests)


Described = tuple[str, str, list[int], bytes]
"""Name, dtype, shape and bytes of a tensor."""

COUNTING = bytes(number % 251 for number in range(600_000))
PAIR = struct.pack("<2f", 1.0, 2.0)
VECTORS: dict[str, list[Described]] = {
    "one": [("a", "F32", [2], PAIR)],
    "scalar": [("a", "I64", [], struct.pack("<q", -1))],
    "empty": [("a", "BF16", [0, 4], b"")],
    "pieces": [("layer.weight", "U8", [600, 1000], COUNTING)],
    "several": [
        ("ü", "BOOL", [3], b"\1\0\1"),
        ("b", "F32", [2], PAIR),
        ("a.b", "F32", [1, 2], PAIR),
    ],
}


def digest_of(tensors: list[Described]) -> str:
    found = []
    for name, dtype, shape, data in tensors:
        leaves = [leaf(data[start : start + size]) for start, size in pieces(len(data))]
        found.append(tensor_digest(name, dtype, shape, leaves))
    return model_digest(found)


def page_digest(tensors: list[Described]) -> str:
    """The same as the page says it, without the code that it describes."""

    def sha(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    def u64(number: int) -> bytes:
        return struct.pack(">Q", number)

    def text(letters: str) -> bytes:
        return u64(len(letters.encode())) + letters.encode()

    found = []
    for name, dtype, shape, data in sorted(tensors, key=lambda tensor: tensor[0].encode()):
        cut = [data[start : start + 262_144] for start in range(0, len(data), 262_144)]
        root = by_definition([sha(b"\0", piece) for piece in cut])
        sizes = b"".join(map(u64, shape))
        found.append(sha(b"\2", text(name), text(dtype), u64(len(shape)), sizes, root))
    return sha(b"\3", u64(len(found)), by_definition(found)).hex()


def test_vectors_of_the_page() -> None:
    rows = [line.split("|") for line in PAGE.read_text("utf-8").splitlines() if "`" in line]
    found = {row[1].strip(): row[-2].strip().strip("`") for row in rows if len(row) > 3}
    for name, tensors in VECTORS.items():
        assert found[name] == digest_of(tensors) == page_digest(tensors), name


def test_digest_of_a_file_of_another_library(tmp_path: Path) -> None:
    tensors = {
        "b": torch.tensor([1.0, 2.0]),
        "ü": torch.tensor([True, False, True]),
        "a.b": torch.tensor([[1.0, 2.0]]),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert model_digest(digest_folder(tmp_path)) == digest_of(VECTORS["several"])


@pytest.mark.parametrize("make", [models.llama, models.mixtral, models.turned, models.peft, Odd])
def test_digest_is_that_of_the_folder(make: Any, tmp_path: Path) -> None:
    model = make()
    found = set()
    for number, options in enumerate(({}, {"max_shard_size": "20KB"}, {"format": "torch"})):
        folder = tmp_path / str(number)
        found.add(save_model(model, folder, digest=True, **options).digest)
        found.add(model_digest(digest_folder(folder)))
        assert not list(folder.glob("*.digests.json"))
    assert len(found) == 1


def test_digest_counts_names_dtypes_shapes_and_bytes() -> None:
    kinds = [("a", "F32", [2]), ("b", "F32", [2]), ("a", "I32", [2]), ("a", "F32", [1, 2])]
    found = {digest_of([(*kind, PAIR)]) for kind in kinds}
    found.add(digest_of([("a", "F32", [2], PAIR[:-1] + b"\1")]))
    assert len(found) == 5


def test_digests_of_tensors_are_written_when_asked(tmp_path: Path) -> None:
    model = models.llama()
    report = save_model(model, tmp_path, digest="file")
    content = json.loads((tmp_path / "model.digests.json").read_text("utf-8"))
    assert "model.digests.json" in report.files
    assert content["digest"] == report.digest
    assert content["tensors"].keys() == model.state_dict().keys()
    assert json.loads(digests_json(digest_folder(tmp_path))) == content


def test_digests_of_an_earlier_save_do_not_stay(tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path, digest="file")
    save_model(models.llama(seed=1), tmp_path)
    assert not (tmp_path / "model.digests.json").exists()
    (tmp_path / "model.digests.json").write_text('{"version": "of somebody else"}')
    save_model(models.llama(seed=1), tmp_path)
    assert (tmp_path / "model.digests.json").exists(), "nothing shows that it is ours"


def test_digests_of_a_model_stay_beside_an_adapter(tmp_path: Path) -> None:
    base = models.llama()
    save_model(base, tmp_path, digest="file")
    save_model(models.peft(), tmp_path, digest="file")
    assert (tmp_path / "model.digests.json").exists()
    assert (tmp_path / "adapter_model.digests.json").exists()


def test_digest_with_a_wrong_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="digest: expected"):
        save_model(models.llama(), tmp_path, digest="sha1")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="found dcp"):
        save_model(models.llama(), tmp_path, digest=True, format="dcp")


def test_digest_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = save_model(models.peft(), tmp_path / "m", digest=True)
    assert main(["digest", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == f"{report.digest}\n"
    assert main(["digest", "--tensors", str(tmp_path / "m")]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == report.digest
    (tmp_path / "none").mkdir()
    assert main(["digest", str(tmp_path / "none")]) == 1
    assert "expected weights" in capsys.readouterr().err


def large() -> Any:
    """Tensors of several pieces, which no number of ranks cuts where the pieces end."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(701, 433), torch.nn.Linear(433, 1031))


def save_on_ranks(rank: int, engines: list[str], folder: str) -> list[str]:
    found = []
    for engine in engines:
        model = wrap(engine, large())
        found.append(save_model(model, f"{folder}/{engine}", digest=True).digest)
        dist.barrier()
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_digest_is_the_same_from_every_engine(size: int, tmp_path: Path) -> None:
    engines = ["ddp", "fsdp2", "zero3"]
    alone = save_model(large(), tmp_path / "alone", digest=True).digest
    for found in worlds.run(size, save_on_ranks, engines, str(tmp_path)):
        assert found == [alone] * len(engines)
