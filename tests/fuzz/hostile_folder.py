"""Folders made of bytes that a fuzzer chooses, and what must hold for the audit of each."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from saver_conformance.folder.layout import shard_names
from saver_conformance.folder.safetensors import DTYPE_BITS, nbytes, write
from saver_conformance.folder_check.audit import audit
from saver_conformance.observation.observation import Tensor
from saver_conformance.reports.audit_text import describe

SHARDS = shard_names(2)
INDEX = "model.safetensors.index.json"
NAMES = (
    "model.safetensors",
    *SHARDS,
    INDEX,
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "pytorch_model.bin",
    "additional_chat_templates",
)
NUMBERS = (0, 1, 2, 3, 8, -1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**30, 0.5)
LINKS = ("/dev/zero", "/etc/passwd", "..", "config.json", "nowhere")
LONGEST_REPORT = 100_000


def save_well(folder: Path) -> None:
    """Fill ``folder`` with a sharded model whose structure has no defect."""
    folder.mkdir(exist_ok=True)
    one = {"a": Tensor("F32", (2,), bytes(8)), "b": Tensor("BF16", (1, 1), bytes(2))}
    two = {"c": Tensor("I64", (), bytes(8)), "d": Tensor("U8", (0,), b"")}
    write(folder / SHARDS[0], one)
    write(folder / SHARDS[1], two)
    weight_map = dict.fromkeys(one, SHARDS[0]) | dict.fromkeys(two, SHARDS[1])
    index = {"metadata": {"total_size": 18, "total_parameters": 4}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    for name in ("config", "generation_config", "tokenizer", "tokenizer_config"):
        (folder / f"{name}.json").write_text("{}")


def spoil(folder: Path, data: bytes) -> set[str]:
    """Change ``folder``, saved well, as ``data`` says; the first byte chooses the way.

    Returns:
        The names that were touched.
    """
    way, rest = data[0] % 6 if data else 0, data[1:]
    name = {2: SHARDS[1], 3: INDEX, 4: NAMES[rest[0] % len(NAMES)] if rest else NAMES[0]}.get(
        way, SHARDS[0]
    )
    if way == 0 or way == 3:
        (folder / name).write_bytes(rest)
    elif way == 1:
        (folder / name).write_bytes(len(rest).to_bytes(8, "little") + rest + bytes(10))
    elif way == 2:
        _craft(folder / name, rest)
    elif way == 4:
        (folder / name).write_bytes(rest[1:])
    else:
        pairs = [
            (NAMES[place % len(NAMES)], kind)
            for kind, place in zip(rest[::2], rest[1::2], strict=False)
        ]
        for name, kind in pairs:
            _replace(folder / name, kind)
        return {name for name, _ in pairs}
    return {name}


def restore(folder: Path, well: Mapping[str, bytes], touched: set[str]) -> None:
    """Give back the content of ``well`` to the names that were touched."""
    for name in touched:
        _remove(folder / name)
        if name in well:
            (folder / name).write_bytes(well[name])


def judge(folder: Path, *, read_bytes: bool = False) -> bool:
    """Whether the audit of ``folder`` is clean; its report is printable and short."""
    found = audit(folder, read_bytes=read_bytes)
    text = "\n".join(describe(found))
    text.encode()
    assert len(text) < LONGEST_REPORT
    assert text.replace("\n", "").isprintable()
    assert found.is_clean == ("no defects found" in text)
    return found.is_clean


def _craft(path: Path, data: bytes) -> None:
    """Write a file whose header is nearly right, the numbers in it chosen by ``data``."""
    numbers = iter(data)
    header, end = {}, 0
    dtypes = (*DTYPE_BITS, "F33")
    while (choice := next(numbers, None)) is not None and len(header) < 20:
        dtype = dtypes[choice % len(dtypes)]
        shape = [NUMBERS[next(numbers, 0) % len(NUMBERS)] for _ in range(choice >> 6)]
        begin, shift = end, next(numbers, 0)
        try:
            end = min(begin + nbytes(dtype, tuple(shape)), 1 << 66)
        except (ValueError, TypeError):
            end = begin + 1
        offsets = [begin, end] if shift < 200 else [begin + 1, NUMBERS[shift % len(NUMBERS)]]
        header[f"t{len(header)}"] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        # At most 1 MiB, and sparse.
        stream.truncate(8 + len(text) + int(max(0, min(end, 1 << 20))))


def _replace(path: Path, kind: int) -> None:
    _remove(path)
    if kind % 6 == 0:
        os.mkfifo(path)
    elif kind % 6 == 1:
        path.mkdir()
    elif kind % 6 == 2:
        path.symlink_to(LINKS[(kind // 6) % len(LINKS)])
    elif kind % 6 == 3:
        path.write_bytes(b"")
    elif kind % 6 == 4:
        path.write_bytes(b'{"peft_type": "LORA", "inference_mode": true}')


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
