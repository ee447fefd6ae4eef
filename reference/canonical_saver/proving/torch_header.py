"""Where the tensors lie in an archive of ``torch.save`` that nobody vouches for.

Nothing of it is unpickled but what ``weights_only`` allows, and no tensor is read.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from canonical_saver.errors import describe
from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.proving.found_tensors import FoundTensor
from canonical_saver.proving.safe_files import MAX_JSON, UnreadableError, opened, quoted

_MOST_RECORDS = 1_000_000


def read_archive(folder: Path, file: str) -> list[FoundTensor]:
    """Read what an archive holds, without its tensors.

    Args:
        folder: the folder.
        file: the file, relative to it.

    Raises:
        UnreadableError: it is no archive of a state dict, or one that lies about its bytes.
        OSError: the file cannot be read.
    """
    path = folder / file
    with opened(path):
        size = path.stat().st_size
    _require_plain(path)
    try:
        with FakeTensorMode():
            values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise UnreadableError(
            f"expected a state dict that loads with weights_only, found {describe(error):.300}"
        ) from error
    if not isinstance(values, dict):
        raise UnreadableError(f"expected a state dict, found a {type(values).__name__}")
    return [
        _tensor(file, name, value, size)
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    ]


def _require_plain(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is, or whose bytes are not in place."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnreadableError(
            f"expected an archive of torch.save, found none: {error}; one of the old form has to "
            "be saved again"
        ) from error
    if len(records) > _MOST_RECORDS:
        raise UnreadableError(f"expected at most {_MOST_RECORDS} records, found {len(records)}")
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise UnreadableError(
                f"expected records as they are, found {quoted(record.filename)} compressed"
            )
        if record.filename.endswith(".pkl") and record.file_size > MAX_JSON:
            raise UnreadableError(f"expected a pickle of at most {MAX_JSON} bytes, found more")


def _tensor(file: str, name: str, value: Any, size: int) -> FoundTensor:
    start = getattr(value.untyped_storage(), "_checkpoint_offset", None)
    if start is None or value.layout != torch.strided or value.dtype not in DTYPE_NAMES:
        raise UnreadableError(f"{quoted(name)}: expected a plain tensor, found another one")
    shape, stride = tuple(value.shape), tuple(value.stride())
    offset = start + int(value.storage_offset()) * value.dtype.itemsize
    span = 0
    if value.numel():
        span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if min(stride, default=0) < 0 or start < 0 or offset + span * value.dtype.itemsize > size:
        raise UnreadableError(f"{quoted(name)}: expected its bytes in the file, found them outside")
    strided = None if value.is_contiguous() else stride
    return FoundTensor(name, file, DTYPE_NAMES[value.dtype], shape, offset, strided)
