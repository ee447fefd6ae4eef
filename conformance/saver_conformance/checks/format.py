"""FORMAT: the weight files and their index as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.folder.layout import INDEX, Index
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

_ALIGNMENT = 8


def _is_limited(case: Case) -> bool:
    return case.max_shard_size is not None


@check("FORMAT-001")
def header(e: Evidence) -> Iterator[Defect]:
    """The headers can be parsed."""
    return _problems(e, "a valid safetensors header", "header", "file")


@check("FORMAT-002", structural=True)
def tiling(e: Evidence) -> Iterator[Defect]:
    """The spans fit their shapes, each other and the file."""
    return _problems(e, "spans that cover the file exactly", "tiling")


@check("FORMAT-003")
def metadata(e: Evidence) -> Iterator[Defect]:
    """Metadata, where there is some, says ``pt``."""
    for file, parsed in e.headers.items():
        if parsed.metadata and parsed.metadata.get("format") != "pt":
            yield e.defect("format is 'pt'", quoted(dict(parsed.metadata)), file=file)


@check("FORMAT-004")
def index(e: Evidence) -> Iterator[Defect]:
    """The index is the union of the headers, file by file."""
    if not _is_sharded(e):
        return
    for problem in e.saved.problems:
        if problem.file == INDEX:
            yield e.defect("a readable index", problem.reason, file=INDEX)
    if e.saved.index is None:
        return
    weight_map = e.saved.index.weight_map
    shards = e.indexed
    file_of = {name: file for file, parsed in shards.items() for name in parsed.tensors}
    for name, file in weight_map.items():
        if file not in shards or name not in shards[file].tensors:
            actual = file_of.get(name)
            yield e.defect(
                f"in {actual}" if actual else "no such entry: no file holds the tensor",
                f"the index names {file}",
                file=INDEX,
                tensor=name,
            )
    for name, file in file_of.items():
        if name not in weight_map:
            yield e.defect(f"in {file}", "no entry", file=INDEX, tensor=name)


@check("FORMAT-005")
def total_size(e: Evidence) -> Iterator[Defect]:
    """``total_size`` is the sum of the tensors' bytes."""
    spans = [span for parsed in e.indexed.values() for span in parsed.tensors.values()]
    yield from _total(e, "total_size", sum(span.nbytes for span in spans))


@check("FORMAT-006")
def total_parameters(e: Evidence) -> Iterator[Defect]:
    """``total_parameters`` is the sum of the tensors' elements."""
    spans = [span for parsed in e.indexed.values() for span in parsed.tensors.values()]
    yield from _total(e, "total_parameters", sum(span.numel for span in spans))


@check("FORMAT-007", when=_is_limited)
def shard_size(e: Evidence) -> Iterator[Defect]:
    """Files of several tensors keep the limit."""
    limit = e.case.max_shard_size
    assert limit is not None  # the check's condition
    for file, parsed in e.headers.items():
        size = sum(span.nbytes for span in parsed.tensors.values())
        if size > limit and len(parsed.tensors) > 1:
            yield e.defect(
                f"at most {limit} bytes of tensors",
                f"{size} bytes in {len(parsed.tensors)} tensors",
                file=file,
            )


@check("FORMAT-008", structural=True)
def alignment(e: Evidence) -> Iterator[Defect]:
    """The data begin at a multiple of 8."""
    for file, parsed in e.headers.items():
        if parsed.data_start % _ALIGNMENT:
            yield e.defect(
                f"data at a multiple of {_ALIGNMENT}",
                f"data at byte {parsed.data_start}",
                file=file,
                offset=parsed.data_start,
            )


@check("FORMAT-009", structural=True)
def each_in_one_file(e: Evidence) -> Iterator[Defect]:
    """No name is in two files."""
    first: dict[str, str] = {}
    for file, parsed in e.indexed.items():
        for name in parsed.tensors:
            if name in first:
                yield e.defect(
                    f"in {first[name]} only",
                    f"also in {file}",
                    file=file,
                    tensor=name,
                )
            first.setdefault(name, file)


@check("FORMAT-010")
def metadata_is_there(e: Evidence) -> Iterator[Defect]:
    """The metadata says ``pt``."""
    for file, parsed in e.headers.items():
        if parsed.metadata.get("format") != "pt":
            yield e.defect("format is 'pt'", quoted(dict(parsed.metadata)), file=file)


def _is_sharded(e: Evidence) -> bool:
    return INDEX in e.own_files


def _problems(
    e: Evidence, expected: str, *defects: Literal["header", "tiling", "file"]
) -> Iterator[Defect]:
    files = [path for path in e.own_files if path.endswith(".safetensors")]
    if not files:
        raise BlockedError("the folder has no safetensors weights of this kind of save")
    for problem in e.saved.problems:
        # FILES-011 has what is neither file nor folder, and therefore not opened.
        opens = problem.file in files and e.after[problem.file].kind in ("file", "folder")
        if opens and problem.defect in defects:
            yield e.defect(expected, problem.reason, file=problem.file, offset=problem.offset)


def _index(e: Evidence) -> Index:
    if e.saved.index is None:
        raise BlockedError(f"{INDEX} cannot be read")
    return e.saved.index


def _total(e: Evidence, key: str, right: int) -> Iterator[Defect]:
    if not _is_sharded(e):
        return
    found = _index(e).metadata.get(key)
    if type(found) is not int or found != right:
        yield e.defect(f"{key} is {right}", quoted(found), file=INDEX)
