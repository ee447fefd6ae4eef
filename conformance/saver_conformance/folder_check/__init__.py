"""The checks of a folder of unknown origin; importing the package registers them all."""

from saver_conformance.folder_check import (
    adapters,
    companions,
    files,
    portable,
    tensors,
    weight_files,
)
from saver_conformance.folder_check.parts import Parts, parts_of
from saver_conformance.folder_check.registry import FolderCheck, Remark, folder_checks

__all__ = [
    "FolderCheck",
    "Parts",
    "Remark",
    "adapters",
    "companions",
    "files",
    "folder_checks",
    "parts_of",
    "portable",
    "tensors",
    "weight_files",
]
