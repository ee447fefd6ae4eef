"""A plan with what rank 0 has found out while it made the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from canonical_saver.formats import Archive
from canonical_saver.formats.torch_archive import place
from canonical_saver.weights.base_tensors import BaseTensor, extended
from canonical_saver.writing.write_items import write_items
from canonical_saver.writing.write_plan import WritePlan


def final(
    plan: WritePlan, carried: Sequence[BaseTensor], archives: Sequence[Archive], rank: int
) -> WritePlan:
    """The plan with the layout that the files have.

    Args:
        plan: the plan, on which the ranks agree.
        carried: tensors of the base, which rank 0 has found and told all ranks.
        archives: where tensors lie in files of the ``torch`` format.
        rank: this rank.
    """
    if carried:
        plan = _carrying(plan, carried, rank)
    if archives:
        files = place(plan.files, archives)
        plan = replace(plan, files=files, planned=write_items(files))
    return plan


def _carrying(plan: WritePlan, tensors: Sequence[BaseTensor], rank: int) -> WritePlan:
    """Lay out a save of a whole model anew, with tensors that rank 0 copies from the base."""
    (weights,) = plan.weight_sets
    weight_sets = [extended(weights, tensors, writes=rank == 0)]
    files = plan.format.lay_out(weight_sets, plan.request)
    return replace(plan, weight_sets=weight_sets, files=files, planned=write_items(files))
