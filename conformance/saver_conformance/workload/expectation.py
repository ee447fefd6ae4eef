"""What belongs in the save, on its way from rank 0 to the judge and to the reloading process."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saver_conformance.folder.safetensors import read_header, read_tensor
from saver_conformance.folder.safetensors import write as write_tensors
from saver_conformance.observation.observation import Expectation, Tensor

MEMORY_FILE = "memory.safetensors"
"""The snapshot under the names that the tensors have in memory."""

_DISK_FILE = "expected-{number}.safetensors"
_PLAIN_FILE = "expected.json"
_SETS = ("base", "optional")


def write(folder: Path, expectation: Expectation, memory: dict[str, Tensor]) -> None:
    """Write the expectation and the snapshot in memory's names into the case's folder."""
    write_tensors(folder / MEMORY_FILE, memory)
    plain = []
    for number, one in enumerate((expectation, *expectation.others)):
        write_tensors(folder / _DISK_FILE.format(number=number), one.tensors)
        fields = asdict(replace(one, tensors={}, others=()))
        plain.append(fields | {key: sorted(fields[key]) for key in _SETS})
    (folder / _PLAIN_FILE).write_text(json.dumps(plain))


def read(folder: Path) -> Expectation:
    """The expectation that :func:`write` left in the case's folder."""
    plain: list[dict[str, Any]] = json.loads((folder / _PLAIN_FILE).read_text())
    first, *others = [
        Expectation(
            **fields
            | {key: frozenset(fields[key]) for key in _SETS}
            | {"tensors": read_tensors(folder / _DISK_FILE.format(number=number)), "others": ()}
        )
        for number, fields in enumerate(plain)
    ]
    return replace(first, others=tuple(others))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file of ours."""
    header = read_header(path)
    return {name: read_tensor(path, header, name) for name in header.tensors}
