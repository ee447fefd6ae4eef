"""Whether the saver became slower between two runs of the bench, row by row. Pure functions.

Seconds of two days are not compared: the machine was another one, or in another state. What is
compared is how many times as long the saver took as others in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import many_ranks
from benchmarks.contestants import NAMES
from benchmarks.ratios import TOLERANCE, Summary, summarize

ONE_SAMPLE = 1.2
"""Factor by which the seconds of what is measured once may differ, on one machine."""

Range = tuple[float, float, float]
"""The least, the median and the greatest of all rounds."""


@dataclass(frozen=True)
class Row:
    """One thing that both runs measured.

    Attributes:
        name: what it is.
        unit: what the numbers are.
        before: in the old run.
        now: in the new one.
    """

    name: str
    unit: str
    before: Range
    now: Range

    @property
    def change(self) -> float:
        """How many times as slow it is now, as far as the rounds tell; 1 where they overlap."""
        noise = TOLERANCE**2
        if self.now[0] > self.before[2] * noise:
            return self.now[0] / self.before[2]
        if self.before[0] > self.now[2] * noise:
            return self.now[2] / self.before[0]
        return 1.0

    @property
    def verdict(self) -> str:
        """``slower``, ``faster`` or ``as before``."""
        return "slower" if self.change > 1 else "faster" if self.change < 1 else "as before"

    def __str__(self) -> str:
        before, now = (f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in (self.before, self.now))
        return f"{self.verdict:9}  {self.name}: {before} before, {now} now, {self.unit}"


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Row]:
    """Compare two runs, as they are in ``performance.json``.

    Returns:
        A row for each thing that both have measured.
    """
    rows = [*_of_cells(summarize(old["samples"]), summarize(new["samples"]))]
    rows += _of_ranks(old.get("many_ranks", []), new.get("many_ranks", []))
    if old.get("machine") == new.get("machine"):
        rows += _of_tensors(old.get("many", []), new.get("many", []))
    return rows


def _of_cells(old: Sequence[Summary], new: Sequence[Summary]) -> Iterator[Row]:
    """One row a cell and policy, beside the contestant that shows the least change.

    Another version of a library may have changed what it takes. What the saver itself lost, it lost
    against all of them.
    """
    before = {(s.cell, s.durable, s.contestant): s for s in old}
    rows: dict[tuple[str, bool], list[Row]] = {}
    for now in new:
        then = before.get((now.cell, now.durable, now.contestant))
        if then is None or now.contestant in ("reference", "unchecked"):
            continue
        policy = "with fsync" if now.durable else "without fsync"
        unit = f"times the seconds of {NAMES[now.contestant]}"
        row = Row(f"{now.cell}, {policy}", unit, _inverse(then.ratio), _inverse(now.ratio))
        rows.setdefault((now.cell, now.durable), []).append(row)
    for found in rows.values():
        yield min(found, key=lambda row: abs(row.change - 1))


def _inverse(ratio: Range) -> Range:
    least, middle, greatest = ratio
    return 1 / greatest, 1 / middle, 1 / least


def _of_ranks(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> Iterator[Row]:
    before = {found["ranks"]: found for found in old}
    for now in new:
        if now["ranks"] in before:
            unit = f"times the seconds of {many_ranks.PEER}"
            then = before[now["ranks"]]
            yield Row(f"{now['ranks']} ranks", unit, ratio_on_ranks(then), ratio_on_ranks(now))


def ratio_on_ranks(found: dict[str, Any]) -> Range:
    """How many times as long the saver took as its peer on many ranks, of all pairs of rounds."""
    ours, peers = (found["seconds"][name] for name in (many_ranks.REFERENCE, many_ranks.PEER))
    ratios = [mine / other for mine in ours for other in peers]
    return min(ratios), median(ratios), max(ratios)


def _of_tensors(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> Iterator[Row]:
    before = {(found["kind"], found["tensors"]): found for found in old}
    for now in new:
        then = before.get((now["kind"], now["tensors"]))
        if then is None:
            continue
        for key in ("plan_seconds", "save_seconds"):
            name = f"{now['kind']}, {now['tensors']:,} tensors, {key.partition('_')[0]}"
            yield Row(name, "seconds, measured once", _once(then[key]), _once(now[key]))


def _once(seconds: float) -> Range:
    spread = ONE_SAMPLE**0.5
    return seconds / spread, seconds, seconds * spread
