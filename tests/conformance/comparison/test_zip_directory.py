"""Members of zip files, whose headers say otherwise than the directory."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from saver_conformance.comparison.zip_directory import ZipError, find_data, read_directory


@pytest.mark.parametrize("place", [26, 28], ids=["name", "extra"])
def test_find_data_that_would_end_behind_the_file_is_refused(place: int, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", bytes(100))
    descriptor = os.open(path, os.O_RDWR)
    try:
        (member,) = read_directory(descriptor).values()
        assert os.pread(descriptor, 100, find_data(descriptor, member)) == bytes(100)
        os.pwrite(descriptor, (1000).to_bytes(2, "little"), member.header + place)
        with pytest.raises(ZipError, match="behind the end of the file"):
            find_data(descriptor, member)
    finally:
        os.close(descriptor)
