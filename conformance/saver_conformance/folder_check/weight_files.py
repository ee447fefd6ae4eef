"""FORMAT: the weight files and their index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saver_conformance.checks import format as run_checks
from saver_conformance.folder.layout import CONFIG, INDEX
from saver_conformance.folder.safetensors import SafetensorsError, read_header
from saver_conformance.folder_check import formats
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

FORMATS = ("pt", "mlx")
"""What loaders of PyTorch models take for their own (``transformers`` 4.57, ``modeling_utils``)."""

_MAX_OTHERS = 100


@folder_check("FORMAT-001", reads_weights=False)
def headers_are_valid(folder: Folder) -> Iterator[Defect | Remark]:
    """The headers of all safetensors files can be parsed, whatever the files are called."""
    if folder.has_weights:
        yield from run_checks.header(folder)
    if folder.is_adapter:
        return
    for name in formats.unusual(folder.listing)[:_MAX_OTHERS]:
        if name in folder.shards or folder.listing[name].kind != "file":
            continue
        try:
            read_header(folder.folder / name)
        except (SafetensorsError, OSError) as error:
            found = error.reason if isinstance(error, SafetensorsError) else str(error)
            if folder.has_weights:
                yield Remark(f"no valid safetensors file: {found}", file=folder.path_of(name))
            else:
                yield folder.defect("a valid safetensors file", found, file=name)


@folder_check("FORMAT-003")
def format_is_known(folder: Folder) -> Iterator[Defect | Remark]:
    """Metadata, where there is some, names a format that ``transformers`` takes for PyTorch's."""
    if CONFIG not in folder.listing:
        return  # no model of transformers, which is the one to look at it
    for file, header in folder.headers.items():
        if header.metadata and header.metadata.get("format") not in FORMATS:
            found = quoted(dict(header.metadata))
            yield folder.defect("format is 'pt' or 'mlx'", found, file=file)


@folder_check("FORMAT-004")
def index_is_right(folder: Folder) -> Iterator[Defect | Remark]:
    """The index can be read, and each of its entries leads to the tensor."""
    for problem in folder.saved.problems:
        if problem.file == INDEX:
            yield folder.defect("a readable index", problem.reason, file=INDEX)
    if INDEX not in folder.own_files or folder.index is None:
        return
    if not folder.index.has_metadata and "model_type" in folder.settings:
        expected = "an object under metadata, which transformers reads"
        yield folder.defect(expected, "none", file=INDEX)
    yield from _wrong_entries(folder)
    yield from _left_out(folder)


@folder_check("FORMAT-005")
def total_size(folder: Folder) -> Iterator[Defect | Remark]:
    """``total_size`` is the sum of the tensors' bytes."""
    spans = (span for header in folder.indexed.values() for span in header.tensors.values())
    yield from _total(folder, "total_size", sum(span.nbytes for span in spans))


@folder_check("FORMAT-006")
def total_parameters(folder: Folder) -> Iterator[Defect | Remark]:
    """``total_parameters``, where it is given, is the sum of the tensors' elements.

    Packed weights of a quantized model count for as many parameters as they stand for.
    """
    if folder.index is None or "total_parameters" not in folder.index.metadata:
        return
    if folder.is_quantized:
        return
    spans = (span for header in folder.indexed.values() for span in header.tensors.values())
    yield from _total(folder, "total_parameters", sum(span.numel for span in spans))


@folder_check("FORMAT-010")
def format_is_there(folder: Folder) -> Iterator[Defect | Remark]:
    """The metadata says which library's tensors these are."""
    for file, header in folder.headers.items():
        if header.metadata.get("format") not in FORMATS:
            found = quoted(dict(header.metadata))
            yield folder.defect("format is 'pt' or 'mlx'", found, file=file)


def _wrong_entries(folder: Folder) -> Iterator[Defect]:
    assert folder.index is not None
    indexed = folder.indexed
    file_of = {name: file for file, header in indexed.items() for name in header.tensors}
    for name, file in folder.index.weight_map.items():
        if file in indexed and name in indexed[file].tensors:
            continue
        if "/" in file and name not in file_of:
            continue  # FILES-001 has what lies elsewhere, and is not read
        actual = file_of.get(name)
        expected = f"in {actual}" if actual else "no such entry: no file holds the tensor"
        found = f"the index names {file}"
        yield folder.defect(expected, found, file=INDEX, tensor=name)


def _left_out(folder: Folder) -> Iterator[Defect | Remark]:
    """Tensors without an entry; loaders find those in a file that any entry names."""
    assert folder.index is not None
    weight_map = folder.index.weight_map
    named = set(weight_map.values())
    for file, header in folder.indexed.items():
        left_out = [name for name in header.tensors if name not in weight_map]
        if file in named and left_out:
            text = f"{len(left_out)} tensors are not in the index, among them {quoted(left_out[0])}"
            yield Remark(text, file=folder.path_of(file))
        elif file not in named:
            for name in left_out:
                expected = f"in {file}"
                yield folder.defect(expected, "no entry", file=INDEX, tensor=name)


def _total(folder: Folder, key: str, right: int) -> Iterator[Defect]:
    if folder.index is None:
        return
    found: Any = folder.index.metadata.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or found != right:
        yield folder.defect(f"{key} is {right}", quoted(found), file=INDEX)
