"""What belongs in the save of a merged model: PEFT's own merge of a model that is whole.

The model is made anew from the base, on one rank and before the engine starts, and is given the
trained bits afterwards. So it has every tensor whole, and in the dtype that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.observation.observation import Tensor
from saver_conformance.workload import models, oracle, training


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model and its tensors.

    Attributes:
        model: the model.
        names: the names of its tensors.
        memory: their bits.
    """

    model: Any
    names: oracle.Names
    memory: dict[str, Tensor]


def make_whole(case: Case, base: Path) -> Any:
    """The model of ``case`` with its adapters as they are before training, whole in this process.

    Call it before the trainer is made: afterwards DeepSpeed spreads what is loaded.
    """
    model = models.load_base(case, base)
    return training.add_adapters(model, case, upcast=case.mode.definition.keeps_dtypes)


def merge(whole: Any, case: Case, trained: Mapping[str, Tensor]) -> Merged:
    """Give ``whole`` the trained bits, and have PEFT merge it.

    Args:
        whole: what ``make_whole`` made; it is used up.
        case: what was trained.
        trained: every parameter, buffer and extra state of the trained model, by name.

    Raises:
        RuntimeError: ``whole`` has other tensors than the trained model.
    """
    rest = {name: oracle.to_torch(tensor) for name, tensor in trained.items()}
    for name, parameter in whole.named_parameters():
        if name not in rest:
            raise RuntimeError(f"the trained model lacks {name}, which the whole one has")
        parameter.data = rest.pop(name)  # in place, so that what is tied stays tied
    if unexpected := whole.load_state_dict(rest, strict=False).unexpected_keys:
        raise RuntimeError(f"the trained model has tensors that the whole one lacks: {unexpected}")
    model = whole.merge_and_unload()
    names = oracle.read_names(model, case.family)
    return Merged(model, names, oracle.snapshot("single", model, names, names.of_whole_model))
