"""Which release broke a case: a search over versions that asks as few of them as it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from saver_conformance.errors import BisectError

Outcome = Literal["holds", "broken", "unknown"]
"""What a case comes to with a version; ``unknown`` where it could not be judged."""
Judge = Callable[[str], Outcome]


@dataclass(frozen=True, slots=True)
class Break:
    """Between which versions a case broke.

    Attributes:
        holds: the last version with which it holds.
        broken: the first version with which it is broken, of those that could be judged.
        between: versions between the two that could not be judged; one of them may have broken it.
        judged: every version that was asked, with what came out, in the order of the search.
    """

    holds: str
    broken: str
    between: tuple[str, ...]
    judged: tuple[tuple[str, Outcome], ...]


def find_break(versions: Sequence[str], judge: Judge) -> Break:
    """The release of ``versions`` that broke a case.

    Args:
        versions: in their order; with the first the case holds, with the last it is broken.
        judge: judges the case with one of them.

    Raises:
        BisectError: the first or the last is not as it has to be.
    """
    if len(versions) < 2:
        raise BisectError(f"expected at least two versions, found {', '.join(versions) or 'none'}")
    judged: dict[str, Outcome] = {}

    def ask(at: int) -> Outcome:
        return judged.setdefault(versions[at], judge(versions[at]))

    low, high = 0, len(versions) - 1
    for at, wanted in ((low, "holds"), (high, "broken")):
        if (found := ask(at)) != wanted:
            raise BisectError(
                f"expected a case that {_TELL[wanted]} with {versions[at]}, found one that "
                f"{_TELL[found]}; choose other versions"
            )
    unknown: set[int] = set()
    while waiting := [at for at in range(low + 1, high) if at not in unknown]:
        middle = (low + high) / 2
        at = min(waiting, key=lambda number: (abs(number - middle), number))
        match ask(at):
            case "holds":
                low = at
            case "broken":
                high = at
            case "unknown":
                unknown.add(at)
    return Break(
        versions[low], versions[high], tuple(versions[low + 1 : high]), tuple(judged.items())
    )


_TELL: dict[str, str] = {
    "holds": "holds",
    "broken": "is broken",
    "unknown": "could not be judged",
}
