"""How simple a case is: of all cases that show a defect, the simplest one tells it best."""

from __future__ import annotations

from dataclasses import fields

from saver_conformance.cases.case import Adapter, Case


def complexity(case: Case) -> tuple[int, int]:
    """How far ``case`` is from the simplest: number of unusual values, then its length."""
    unusual = _count_unusual(case, skipped=("mode", "adapter", "world_size", "seed"))
    if case.adapter is not None:
        unusual += _count_unusual(case.adapter, skipped=("alpha",))
    return unusual, len(case.to_json())


def _count_unusual(data: Case | Adapter, skipped: tuple[str, ...]) -> int:
    return sum(
        getattr(data, item.name) != item.default
        for item in fields(data)
        if item.name not in skipped
    )
