"""A plan with tensors of the base beside those of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from canonical_saver.weights.base_tensors import BaseTensor, extended
from canonical_saver.writing.write_items import write_items
from canonical_saver.writing.write_plan import WritePlan


def carrying(plan: WritePlan, tensors: Sequence[BaseTensor], rank: int) -> WritePlan:
    """Lay out a save of a whole model anew, with tensors that rank 0 copies from the base.

    Args:
        plan: the plan, on which the ranks agree.
        tensors: the tensors, which rank 0 has found and told all ranks.
        rank: this rank.
    """
    (weights,) = plan.weight_sets
    weight_sets = [extended(weights, tensors, writes=rank == 0)]
    files = plan.format.lay_out(weight_sets, plan.request)
    return replace(plan, weight_sets=weight_sets, files=files, planned=write_items(files))
