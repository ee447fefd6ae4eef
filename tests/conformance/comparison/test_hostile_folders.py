"""Comparisons with folders and files of strangers: each ends, and none harms anybody."""

import io
import os
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.hostile_comparison import compare, read
from tests.fuzz.hostile_folder import restore, save_well, spoil

from saver_conformance.comparison.torch_archive import TorchArchiveError, read_archive


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    for name in ("folder", "well"):
        save_well(root / name)
    return root / "folder", root / "well"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_compare_of_hostile_folders_ends(folders, data):
    folder, well = folders
    files = {path.name: path.read_bytes() for path in well.iterdir()}
    touched = spoil(folder, data)
    try:
        compare(folder, well)
    finally:
        restore(folder, files, touched)
    assert compare(folder, well)


@pytest.fixture(scope="module")
def archive():
    stream = io.BytesIO()
    torch.save({"a": torch.rand(3, 4).t(), "b": torch.arange(5)}, stream)
    return stream.getvalue()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_read_archive_of_spoiled_bytes_ends(archive, tmp_path, data):
    spoiled = bytearray(archive)
    for at in data.draw(st.lists(st.integers(0, len(archive) - 1), max_size=4)):
        spoiled[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(archive)) | st.just(len(archive)))
    (tmp_path / "pytorch_model.bin").write_bytes(spoiled[:cut])
    read(tmp_path / "pytorch_model.bin")


def save_archive(path, text, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", text)
        for name, data in storages:
            archive.writestr(f"archive/data/{name}", data)


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


class _BuiltLike:
    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (_Runs(), 0, (1,), (1,))


@pytest.mark.parametrize(
    "plain", [_Runs(), {"a": _Runs()}, {"a": _BuiltLike()}, {"a": [_Runs()]}, {1: 2}, [1]]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_archive_runs_nothing(plain, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_archive(tmp_path / "m.bin", pickle.dumps(plain, protocol))
    with pytest.raises(TorchArchiveError):
        read_archive(tmp_path / "m.bin")
    assert not (tmp_path / "harmed").exists()


DEEP = b"\x80\x02)" + b"\x85" * 1_000_000 + b"."
HOSTILE = {
    "deep": DEEP,
    "no end": b"\x80\x02}",
    "empty": b"",
    "pops nothing": b"\x80\x02R.",
    "unknown memo": b"\x80\x02h\x07.",
    "long length": b"\x80\x02X\xff\xff\xff\x7fa.",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ks.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_read_archive_of_hostile_pickles_refuses(kind, tmp_path):
    save_archive(tmp_path / "m.bin", HOSTILE[kind])
    with pytest.raises(TorchArchiveError):
        read_archive(tmp_path / "m.bin")


def test_read_archive_of_compressed_members_refuses(tmp_path):
    save_archive(tmp_path / "m.bin", bytes(10_000_000), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TorchArchiveError, match="compressed"):
        read_archive(tmp_path / "m.bin")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": (1 << 40,), "strides": (1,)}, "ends behind its storage"),
        ({"shape": (5, 5), "strides": (1, 1 << 40)}, "ends behind its storage"),
        ({"offset": 1 << 50}, "ends behind its storage"),
        ({"key": "7"}, "is missing"),
        ({"shape": (2, 2)}, "do not fit each other"),
    ],
)
def test_read_archive_of_tensors_beyond_their_storage_refuses(change, words, tmp_path):
    wanted = {"key": "0", "offset": 0, "shape": (4,), "strides": (1,)} | change
    save_archive(tmp_path / "m.bin", _state_dict(**wanted), [("0", bytes(16))])
    with pytest.raises(TorchArchiveError, match=words):
        read_archive(tmp_path / "m.bin")


def test_read_archive_of_a_state_dict_by_hand_reads_it(tmp_path):
    text = _state_dict(key="0", offset=1, shape=(3,), strides=(1,))
    save_archive(tmp_path / "m.bin", text, [("0", bytes(16))])
    assert read_archive(tmp_path / "m.bin")["a"].shape == (3,)


def _state_dict(key, offset, shape, strides):
    """A pickle as torch writes it, of one tensor of any numbers."""

    def integer(number):
        data = number.to_bytes(9, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def text(word):
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    def numbers(values):
        return b"(" + b"".join(map(integer, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += integer(4) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset)
    tensor += numbers(shape) + numbers(strides) + b"\x89N" + b"tR"
    return b"\x80\x02}" + text("a") + tensor + b"s."
