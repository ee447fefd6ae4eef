"""What a check reports."""

from __future__ import annotations

from dataclasses import dataclass, fields

from saver_conformance.cases.case import Case


@dataclass(frozen=True, slots=True)
class Defect:
    """One place where a saver breaks the clause of the check that yields this.

    Attributes:
        expected: what should be there.
        found: what is there.
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

    expected: str
    found: str
    file: str | None = None
    tensor: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    rank: int | None = None
    offset: int | None = None
    differing: int | None = None
    ended: str | None = None
    place: str | None = None

    def finding(self, clause: str, case: Case) -> Finding:
        """This defect as a finding: it breaks ``clause``, and ``case`` showed it."""
        own = {item.name: getattr(self, item.name) for item in fields(Defect)}
        return Finding(**own, clause=clause, case=case)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Defect):
    """A defect, the clause that it breaks, and the case that showed it.

    Attributes:
        clause: id of the clause, such as ``TENSOR-003``.
        case: the case.
    """

    clause: str
    case: Case
