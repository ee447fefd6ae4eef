"""The staged weight files while ranks write to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from canonical_saver.file_io import flush
from canonical_saver.formats.layout import File


class OpenFiles:
    """The staged files, each opened when first needed; flushed to disk on the way out."""

    def __init__(self, folder: Path, files: Sequence[File], mode: int = os.O_RDWR) -> None:
        self._folder, self._files, self._mode = folder, files, mode
        self._handles: dict[int, int] = {}

    def __enter__(self) -> OpenFiles:
        return self

    def __getitem__(self, number: int) -> int:
        if number not in self._handles:
            path = self._folder / self._files[number].name
            self._handles[number] = os.open(path, self._mode | os.O_NOFOLLOW)
        return self._handles[number]

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._mode != os.O_RDONLY:
                for handle in self._handles.values():
                    flush(handle)
        finally:
            for handle in self._handles.values():
                os.close(handle)
