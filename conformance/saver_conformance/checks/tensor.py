"""TENSOR: which tensors are saved, under which names, in which shape, with which bits."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.adapter import is_base
from saver_conformance.checks.evidence import Evidence
from saver_conformance.checks.registry import check
from saver_conformance.checks.wrapper_names import without_wrappers
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.tensor_diff import compare, describe

SHOWN_NAMES = 3
"""Names on disk that are told for one in memory; experts have many."""


def _is_tied(case: Case) -> bool:
    return case.reloads_tied


@check("TENSOR-001")
def nothing_missing(e: Evidence) -> Iterator[Defect]:
    """Every expected tensor is there; a name with a wrapper's part counts, TENSOR-003 has it."""
    present = {name for name in e.file_of} | set(_wrapped(e).values())
    for name, tensor in e.expected.required.items():
        if name not in present:
            yield e.defect(
                describe(tensor),
                f"missing from {', '.join(map(e.path_of, e.headers))}{_name_in_memory(e, name)}",
                tensor=name,
            )


@check("TENSOR-002")
def nothing_foreign(e: Evidence) -> Iterator[Defect]:
    """No tensor is there that is neither expected nor the subject of a narrower clause."""
    wrapped = _wrapped(e)
    for name, file in e.file_of.items():
        expected = e.expected
        known = name in expected.tensors or name in expected.tied or name in expected.optional
        if known or name in wrapped or (e.case.saves_adapter and is_base(e, name)):
            continue
        yield e.defect(
            "only tensors that belong in the save",
            f"a tensor that does not belong in the save{_name_on_disk(e, name)}",
            file=file,
            tensor=name,
        )


@check("TENSOR-003")
def canonical_names(e: Evidence) -> Iterator[Defect]:
    """No expected tensor is there under a wrapper's name."""
    for name, canonical in _wrapped(e).items():
        yield e.defect(f"the name {canonical}", f"{name}", file=e.file_of[name], tensor=name)


@check("TENSOR-004")
def shapes(e: Evidence) -> Iterator[Defect]:
    """Tensors that are there have their shape."""
    for name, file in e.file_of.items():
        wanted, found = e.expected.tensors.get(name), e.headers[file].tensors[name]
        if wanted is not None and found.shape != tuple(wanted.shape):
            yield e.defect(
                f"shape {list(wanted.shape)}",
                f"shape {list(found.shape)}",
                file=file,
                tensor=name,
            )


@check("TENSOR-005")
def dtypes(e: Evidence) -> Iterator[Defect]:
    """Tensors that are there have their dtype."""
    for name, file in e.file_of.items():
        wanted, found = e.expected.tensors.get(name), e.headers[file].tensors[name]
        if wanted is not None and found.dtype != wanted.dtype:
            yield e.defect(wanted.dtype, found.dtype, file=file, tensor=name)


@check("TENSOR-006")
def bits(e: Evidence) -> Iterator[Defect]:
    """Tensors of the right dtype and shape have their bits."""
    for name, file in e.file_of.items():
        wanted, span = e.expected.tensors.get(name), e.headers[file].tensors[name]
        if wanted is None or (span.dtype, span.shape) != (wanted.dtype, tuple(wanted.shape)):
            continue
        # Only bytes of a known, equal length are read.
        if difference := compare(name, wanted, e.tensor(name)):
            yield e.difference("the trained bits", difference, file=file)


@check("TENSOR-007", when=_is_tied)
def tied_once(e: Evidence) -> Iterator[Defect]:
    """No tied name is there beside the tensor that it shares memory with."""
    for name, file in e.file_of.items():
        if name in e.expected.tied:
            yield e.defect(
                f"only {e.expected.tied[name]}, which is the same memory",
                "saved a second time",
                file=file,
                tensor=name,
            )


def _name_in_memory(e: Evidence, name: str) -> str:
    """A hint where a tensor has another name in memory than the one that it is missed under."""
    memory = e.expected.in_memory.get(name)
    if memory is None:
        return ""
    there = ", and that is in the file" if memory in e.file_of else ""
    return f"; in memory it is {memory}{there}: transformers converts names when it saves"


def _name_on_disk(e: Evidence, name: str) -> str:
    """A hint where a tensor is saved under the name that it has in memory alone."""
    on_disk = [hub for hub, memory in e.expected.in_memory.items() if memory == name]
    if not on_disk:
        return ""
    more = ", ..." if len(on_disk) > SHOWN_NAMES else ""
    return (
        "; it is a name in memory, which transformers converts when it saves, to "
        f"{', '.join(on_disk[:SHOWN_NAMES])}{more}"
    )


def _wrapped(e: Evidence) -> dict[str, str]:
    """Names that differ from an expected one only by a wrapper's parts, with that one."""
    wanted = {*e.expected.tensors, *e.expected.tied, *e.expected.optional}
    canonical = {without_wrappers(name): name for name in wanted}
    return {
        name: canonical[plain]
        for name in e.file_of
        if name not in wanted
        and (plain := without_wrappers(name)) in canonical
        # A model's own module may be called like a wrapper's; a name that lacks it has no wrapper.
        and len(name) > len(canonical[plain])
    }
