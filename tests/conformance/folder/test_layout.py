"""Reading a saved folder never fails, whatever lies in it."""

import json
import math
import os

import pytest

from saver_conformance.folder import layout
from saver_conformance.folder.layout import (
    UnreadableJsonError,
    belongs_to_save,
    layout_of,
    read_json_object,
    read_weights,
    scan,
    shard_names,
)
from saver_conformance.folder.regular_file import read_whole
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import Tensor

ONE = {"a": Tensor("U8", (1,), b"1")}
TWO = {"b": Tensor("U8", (1,), b"2")}


def test_scan_lists_all_kinds_and_follows_no_link(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo")
    found = scan(tmp_path)
    assert {path: entry.kind for path, entry in found.items()} == {
        "dangling": "link",
        "fifo": "other",
        "file": "file",
        "folder": "folder",
        "folder/.hidden": "file",
        "loop": "link",
    }
    assert found["file"].mode == 0o640
    assert found["file"].size == 1
    assert found["file"].sha256.startswith("2d711642b726b044")
    assert found["fifo"].sha256 == ""


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        ("model.safetensors", "single"),
        ("model-00001-of-00002.safetensors", "sharded"),
        ("model.safetensors.index.json", "sharded"),
        ("adapter_model.safetensors", "adapter"),
        ("pytorch_model.bin", "pickle"),
        ("pytorch_model-00001-of-00002.bin", "pickle"),
        ("pytorch_model.bin.index.json", "pickle"),
        ("adapter_model.bin", "pickle"),
        ("checkpoint-1/model.safetensors", None),
        ("model-1-of-2.safetensors", None),
        ("config.json", None),
    ],
)
def test_layout_of(path, layout):
    assert layout_of(path) == layout


def test_belongs_to_save():
    assert belongs_to_save("additional_chat_templates/tool.jinja")
    assert belongs_to_save("tokenizer.json")
    assert not belongs_to_save("checkpoint-1/tokenizer.json")
    assert not belongs_to_save("notes.txt")


def test_sharded_folder(tmp_path):
    for name, tensors in zip(shard_names(2), (ONE, TWO), strict=True):
        write(tmp_path / name, tensors)
    weight_map = {"a": shard_names(2)[0], "b": shard_names(2)[1]}
    index = {"metadata": {"total_size": 2}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    saved = read_weights(tmp_path)
    assert set(saved.layouts) == {"sharded"}
    assert list(saved.headers) == list(shard_names(2))
    assert saved.index.weight_map == weight_map
    assert saved.files_of == {name: (file,) for name, file in weight_map.items()}
    assert saved.problems == ()


def test_read_weights_of_files_that_an_index_names_reads_their_headers(tmp_path):
    write(tmp_path / "part.safetensors", ONE)
    write(tmp_path / "another.safetensors", TWO)
    saved = read_weights(tmp_path, ["part.safetensors"])
    assert saved.layouts == {"sharded": ("part.safetensors",)}
    assert list(saved.headers) == ["part.safetensors"]


def test_problems_are_collected(tmp_path):
    write(tmp_path / "model-00001-of-00002.safetensors", ONE)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": []}')
    (tmp_path / "adapter_model.safetensors").mkdir()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not opened")
    saved = read_weights(tmp_path)
    assert set(saved.layouts) == {"single", "sharded", "adapter", "pickle"}
    assert list(saved.headers) == ["model-00001-of-00002.safetensors"]
    assert saved.index is None
    assert {problem.file: problem.defect for problem in saved.problems} == {
        "adapter_model.safetensors": "file",
        "model-00002-of-00002.safetensors": "header",
        "model.safetensors": "file",
        "model.safetensors.index.json": "index",
    }


def test_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        saved = read_weights(path)
        assert not saved.layouts
        assert not saved.problems


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff{}", b"NaN", b'{"a": nan}', b"[" * 200_000, b"9" * 5000]
)
def test_unreadable_json(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UnreadableJsonError, match=r"config\.json"):
        read_json_object(tmp_path / "config.json")


def test_read_json_object_of_constants_returns_what_python_reads(tmp_path):
    (tmp_path / "config.json").write_text('{"limit": [0.0, Infinity, -Infinity]}')
    assert read_json_object(tmp_path / "config.json") == {"limit": [0.0, math.inf, -math.inf]}


def test_json_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UnreadableJsonError, match="no regular file"):
        read_json_object(tmp_path / "config.json")
    with pytest.raises(UnreadableJsonError, match="there is no"):
        read_json_object(tmp_path / "generation_config.json")


def test_a_file_of_just_the_limit_is_read_and_a_larger_one_is_not(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"123")
    assert read_whole(path, 3) == b"123"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_whole(path, 2)


def test_what_is_no_weight_file_is_not_read_as_one(tmp_path):
    write(tmp_path / "model.safetensors", ONE)
    (tmp_path / "config.json").write_text("{}")
    found = read_weights(tmp_path)
    assert (tuple(found.headers), found.problems) == (("model.safetensors",), ())


def test_so_many_bytes_of_headers_are_read_and_no_more(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"model-0000{number + 1}-of-00003.safetensors", ONE)
    size = next(iter(read_weights(tmp_path).headers.values())).data_start
    for limit, count in ((size, 2), (size - 1, 1), (2 * size, 3)):
        monkeypatch.setattr(layout, "_MAX_HEADERS_BYTES", limit)
        found = read_weights(tmp_path)
        assert len(found.headers) == count
        assert len(found.problems) == 3 - count
