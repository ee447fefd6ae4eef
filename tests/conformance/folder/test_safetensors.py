"""The suite's own reader of the safetensors format, against the library and against hostility."""

import json
import os
import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saver_conformance.folder.safetensors import (
    DTYPE_BITS,
    SafetensorsError,
    nbytes,
    read_header,
    read_tensor,
    write,
)
from saver_conformance.observation.observation import Tensor


def craft(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path):
    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(2, 0, dtype=torch.bfloat16),
        "c": torch.tensor(7),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(2, dtype=torch.float8_e4m3fn),
        "f": torch.randn(2, dtype=torch.complex64),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"format": "pt"})
    header = read_header(path)
    assert header.metadata == {"format": "pt"}
    assert header.file_size == path.stat().st_size
    for name, tensor in tensors.items():
        found = read_tensor(path, header, name)
        assert found.shape == tuple(tensor.shape)
        assert found.data == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert {header.tensors[name].dtype for name in "abcdef"} == {
        "F32",
        "BF16",
        "I64",
        "BOOL",
        "F8_E4M3",
        "C64",
    }


def test_the_library_reads_what_write_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    write(
        path,
        {
            "z": Tensor("F32", (2,), torch.tensor([1.0, -0.0]).numpy().tobytes()),
            "a": Tensor("I64", (), memoryview((5).to_bytes(8, "little"))),
            "empty": Tensor("U8", (0, 3), b""),
        },
    )
    loaded = load_file(path)
    assert torch.equal(loaded["z"], torch.tensor([1.0, -0.0]))
    assert loaded["a"].item() == 5
    assert loaded["empty"].shape == (0, 3)
    assert read_header(path).data_start % 8 == 0
    assert list(read_header(path).tensors) == ["z", "a", "empty"]


def test_write_refuses_bytes_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="need 8"):
        write(tmp_path / "x.safetensors", {"a": Tensor("F32", (2,), b"1234")})


def test_sub_byte_types():
    assert nbytes("F4", (2, 3)) == 3
    assert nbytes("F6_E2M3", (4,)) == 3
    with pytest.raises(ValueError, match="byte"):
        nbytes("F4", (3,))
    assert all(bits in (4, 6, 8, 16, 32, 64) for bits in DTYPE_BITS.values())


HEADERS = {
    "no brace": (b"[]      ", "begins with"),
    "no json": (b'{"a": }', "not JSON"),
    "text after the object": (b"{}x", "not JSON"),
    "not utf-8": (b'{"\xff": 1}', "UTF-8"),
    "nan": (b'{"a": NaN}', "NaN"),
    "deep": (b'{"a":' + b"[" * 200_000, "cannot be parsed"),
    "long integer": (b'{"a":' + b"9" * 5000 + b"}", "cannot be parsed"),
    "duplicate tensor": (b'{"a": {}, "a": {}}', "twice"),
    "duplicate field": (b'{"a": {"dtype": "F32", "dtype": "F16"}}', "twice"),
    "half surrogate": (
        b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}',
        "surrogate",
    ),
    "metadata not strings": ({"__metadata__": {"format": 1}}, "strings"),
    "metadata a list": ({"__metadata__": []}, "strings"),
    "entry a list": ({"a": []}, "expected an object"),
    "entry with more": ({"a": {**entry(), "more": 1}}, "expected an object"),
    "unknown dtype": ({"a": entry(dtype="F33")}, "unknown dtype"),
    "dtype a list": ({"a": entry() | {"dtype": []}}, "unknown dtype"),
    "negative size": ({"a": entry(shape=(-1,))}, "unsigned"),
    "huge size": ({"a": entry(shape=(1 << 64,))}, "unsigned"),
    "boolean size": ({"a": entry(shape=(True,))}, "unsigned"),
    "float size": ({"a": entry(shape=(1.0,))}, "unsigned"),
    "three offsets": ({"a": entry() | {"data_offsets": [0, 4, 4]}}, "pair"),
    "negative offset": ({"a": entry(begin=-4, end=0)}, "pair"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_bad_headers(tmp_path, name):
    header, message = HEADERS[name]
    with pytest.raises(SafetensorsError, match=message) as caught:
        read_header(craft(tmp_path / "x.safetensors", header, b"1234"))
    assert caught.value.defect == "header"
    assert caught.value.offset >= 0


TILINGS = {
    "gap at the start": ({"a": entry(begin=4, end=8)}, 8, "gap"),
    "gap": ({"a": entry(), "b": entry(begin=8, end=12)}, 12, "gap"),
    "overlap": ({"a": entry(), "b": entry(begin=2, end=6)}, 6, "overlap"),
    "same bytes twice": ({"a": entry(), "b": entry()}, 4, "overlap"),
    "ends before it begins": ({"b": entry(begin=4, end=0)}, 4, "before it begins"),
    "too short for its shape": ({"a": entry(shape=(2,))}, 4, "needs 8"),
    "product of sizes too large": ({"a": entry(shape=(1 << 40, 1 << 40))}, 4, "needs"),
    "half a byte": ({"a": entry(dtype="F4", shape=(3,), end=2)}, 2, "byte"),
    "trailing byte": ({"a": entry()}, 5, "the file at"),
    "truncated": ({"a": entry()}, 3, "the file at"),
    "bytes of nobody": ({}, 1, "the file at"),
    "ends beyond the file": ({"a": entry(dtype="U8", shape=(1 << 50,), end=1 << 50)}, 4, "file at"),
}


@pytest.mark.parametrize("name", TILINGS)
def test_bad_tilings(tmp_path, name):
    header, size, message = TILINGS[name]
    with pytest.raises(SafetensorsError, match=message) as caught:
        read_header(craft(tmp_path / "x.safetensors", header, b"\0" * size))
    assert caught.value.defect == "tiling"


def test_offset_of_a_json_error_is_counted_in_bytes(tmp_path):
    text = '{"äöü": x}'.encode()
    with pytest.raises(SafetensorsError) as caught:
        read_header(craft(tmp_path / "x.safetensors", text))
    assert caught.value.offset == 8 + text.index(b"x")


@pytest.mark.parametrize("content", [b"", b"1234567", b"\0" * 8, b"\xff" * 8, b"\xff" * 20])
def test_short_files(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafetensorsError) as caught:
        read_header(path)
    # A header of no bytes is no JSON at its first; all others break at the length.
    assert caught.value.offset == (8 if content == b"\0" * 8 else 0)


def test_the_offset_of_an_overlap_is_that_in_the_file(tmp_path):
    header = {"a": entry(), "b": entry(begin=2, end=6)}
    path = craft(tmp_path / "x.safetensors", header, b"\0" * 6)
    with pytest.raises(SafetensorsError, match="overlap") as caught:
        read_header(path)
    assert caught.value.offset == path.stat().st_size - 6 + 4


def test_nothing_is_allocated_by_a_declared_size(tmp_path):
    path = craft(tmp_path / "x.safetensors", b"{}", length=1 << 62)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SafetensorsError, match="at most 2 is possible"):
        read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


def test_links_fifos_and_folders_are_refused(tmp_path):
    file = craft(tmp_path / "x.safetensors", {})
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "folder", "fifo", "missing"):
        with pytest.raises(OSError, match=r".") as caught:
            read_header(tmp_path / name)
        assert not isinstance(caught.value, SafetensorsError)


def test_where_the_tensors_end_is_told(tmp_path):
    path = craft(tmp_path / "x.safetensors", {"a": entry()}, b"12345")
    with pytest.raises(SafetensorsError, match="the tensors end") as refused:
        read_header(path)
    assert refused.value.offset == path.stat().st_size - 1


def test_a_tensor_that_comes_in_pieces_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write(path, {"a": Tensor("U8", (8,), b"12345678"), "b": Tensor("U8", (1,), b"9")})
    header, plain = read_header(path), os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: plain(file, min(size, 3), at))
    assert bytes(read_tensor(path, header, "a").data) == b"12345678"


def test_a_file_that_shrinks_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path, {name: Tensor("U8", (8,), b"12345678") for name in "ab"})
    header = read_header(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(SafetensorsError, match="ends inside") as refused:
        read_tensor(path, header, "b")
    assert refused.value.offset == path.stat().st_size


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_a_header_or_in_the_one_error(tmp_path_factory, content, framed):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if framed else content)
    try:
        header = read_header(path)
    except SafetensorsError:
        return
    assert header.file_size == path.stat().st_size


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["F32", "U8", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), _JSON), st.binary(max_size=9))
def test_any_json_ends_in_a_header_or_in_the_one_error(tmp_path_factory, header, data):
    path = craft(tmp_path_factory.getbasetemp() / "json.safetensors", header, data)
    try:
        parsed = read_header(path)
    except SafetensorsError:
        return
    assert sum(span.nbytes for span in parsed.tensors.values()) == len(data)
