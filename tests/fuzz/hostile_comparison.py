"""What must hold for comparisons with folders and files made of bytes that a fuzzer chooses."""

import json
from pathlib import Path

from saver_conformance.comparison.folder_diff import diff_folders
from saver_conformance.comparison.plain import diff_as_plain, training_as_plain
from saver_conformance.comparison.torch_archive import TorchArchiveError, read_archive
from saver_conformance.comparison.training_check import check_training
from saver_conformance.comparison.words import describe_diff, describe_training
from saver_conformance.errors import ComparisonError

LONGEST_REPORT = 200_000


def compare(folder: Path, well: Path) -> bool:
    """Whether ``folder`` is the same as ``well``; all comparisons end, and their reports print."""
    diff = diff_folders(well, folder)
    _print("\n".join(describe_diff(diff)), diff_as_plain(diff))
    for given in ((folder, well), (well, folder), (well, well, folder), (folder, well, folder)):
        try:
            check = check_training(*given)
        except ComparisonError as error:
            str(error).encode(errors="backslashreplace")
            continue
        _print("\n".join(describe_training(check)), training_as_plain(check))
    return diff.is_same


def read(path: Path) -> int:
    """The tensors that a ``.bin`` file holds, all of which lie in it; 0 for one that is refused."""
    try:
        found = read_archive(path)
    except TorchArchiveError:
        return 0
    size = path.stat().st_size
    assert all(
        0 <= tensor.begin <= tensor.begin + tensor.nbytes <= size for tensor in found.values()
    )
    return len(found)


def _print(text: str, plain: object) -> None:
    text.encode()
    assert len(text) < LONGEST_REPORT
    assert text.replace("\n", "").isprintable()
    json.dumps(plain, allow_nan=False)
