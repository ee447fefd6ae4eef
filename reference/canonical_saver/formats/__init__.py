"""The ways in which weights are stored in files: safetensors and torch's own archive.

Both put each tensor's bytes one behind the other somewhere in a file, so every rank can write its
own ranges in place. In a ``torch`` archive, the places are known once rank 0 has made the archive
with all data left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from canonical_saver.file_io import put, reserve
from canonical_saver.formats import layout
from canonical_saver.formats.layout import File
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import Weights

Archive = tuple[int, dict[str, int]]
"""Bytes of a file of the ``torch`` format, and the first byte of each tensor in it, by its name."""

_TORCH_STEMS = {"model": "pytorch_model", "adapter_model": "adapter_model"}


def _stem(weights: Weights, asked: Request) -> tuple[str, str]:
    if asked.format == "torch":
        return _TORCH_STEMS[weights.stem], ".bin"
    return weights.stem, ".safetensors"


def lay_out(sets: Sequence[Weights], asked: Request) -> list[File]:
    """Lay out all weight files of a save.

    Returns:
        The files. Those of the ``torch`` format have no header, and offsets as if nothing lay
        between tensors, until :func:`place` has those of the archive; ``dcp`` has none that could
        be known before.
    """
    files: list[File] = []
    if asked.format == "dcp":
        return files  # its files are one a rank, made by torch
    for weights in sets:
        stem, ending = _stem(weights, asked)
        # PEFT knows no shards: an adapter is one file.
        shards = [list(weights.entries)]
        if weights.adapter is None:
            shards = layout.split(weights.entries, asked.max_shard_size, asked.dtype)
        names = layout.shard_names(stem, ending, len(shards))
        for name, entries in zip(names, shards, strict=True):
            path = f"{weights.folder}/{name}" if weights.folder else name
            if asked.format == "torch":
                files.append(layout.plain_file(path, entries, asked.dtype))
            else:
                files.append(layout.safetensors_file(path, entries, asked.dtype))
    return files


def create(
    folder: Path, sets: Sequence[Weights], files: Sequence[File], asked: Request
) -> list[Archive]:
    """Make each file at its final size, with all but its tensors, and the indexes; for rank 0.

    Returns:
        Where the tensors lie, as :func:`place` needs it.
    """
    archives = []
    if asked.format == "torch":
        archives = _create_archives(folder, files)
    else:
        for file in files:
            _create(folder / file.name, file)
    _write_indexes(folder, sets, files, asked)
    return archives


def _create(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        reserve(handle, file.size)
        put(handle, [memoryview(file.header)], 0)
    finally:
        os.close(handle)


def _create_archives(folder: Path, files: Sequence[File]) -> list[Archive]:
    """Make the archives of the ``torch`` format with room for the data."""
    made = []
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
            tensors = {
                p.entry.name: torch.empty(p.entry.shape, dtype=p.dtype) for p in file.tensors
            }
            torch.save(tensors, path)
        with FakeTensorMode():
            found = torch.load(path, weights_only=True)
        places = {k: v.untyped_storage()._checkpoint_offset or 0 for k, v in found.items()}
        made.append((path.stat().st_size, places))
    return made


def place(files: list[File], archives: Sequence[Archive]) -> list[File]:
    """Give the files of the ``torch`` format their sizes, and their tensors their offsets.

    Files of other formats are returned as they are: their layout is final.
    """
    if not archives:
        return files
    placed = []
    for file, (size, offsets) in zip(files, archives, strict=True):
        tensors = [replace(p, offset=offsets[p.entry.name]) for p in file.tensors]
        tensors.sort(key=lambda tensor: tensor.offset)
        placed.append(replace(file, tensors=tuple(tensors), size=size))
    return placed


def _write_indexes(
    folder: Path, sets: Sequence[Weights], files: Sequence[File], asked: Request
) -> None:
    """Write the index of each set of several shards."""
    for weights in sets:
        stem, ending = _stem(weights, asked)
        start = f"{weights.folder}/{stem}-" if weights.folder else f"{stem}-"
        shards = [file for file in files if file.name.startswith(start)]
        if len(shards) > 1:
            (folder / weights.folder / f"{stem}{ending}.index.json").write_bytes(
                layout.index(shards)
            )
