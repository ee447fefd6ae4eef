"""What a check reports."""

from __future__ import annotations

from dataclasses import dataclass

from saver_conformance.cases.case import Case


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a saver breaks a clause.

    Attributes:
        clause: id of the clause, such as ``TENSOR-003``.
        expected: what should be there.
        found: what is there.
        case: the case that showed it.
        file: path below the output folder.
        tensor: name of the tensor.
        dtype: the tensor's dtype, as it should be.
        shape: the tensor's shape, as it should be.
        rank: the rank at fault.
        offset: byte offset of the first difference, counted in the tensor (or in the file).
        differing: number of differing bytes.
        ended: where the save did not return on the rank: how it ended, in one line.
        place: the saver's own innermost frame there.
    """

    clause: str
    expected: str
    found: str
    case: Case
    file: str | None = None
    tensor: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    rank: int | None = None
    offset: int | None = None
    differing: int | None = None
    ended: str | None = None
    place: str | None = None
