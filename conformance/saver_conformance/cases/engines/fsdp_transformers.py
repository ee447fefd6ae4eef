"""FSDP2 as transformers applies it while it loads a model, by ``DistributedConfig``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp1 import NO_ODD_PARAMETERS
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case

REQUIRES = ("transformers>=5.23", "peft>=0.21")
"""Older ones have other arguments, or none; the suite has not been tried with them."""

TRIED: Mapping[str, Sequence[Any]] = {
    "architecture": ("llama", "llama-tied", "qwen2", "mixtral", "phi3", "custom"),
    "tie": ("declared",),
    "targets": ("attention",),
    "modules_to_save": ((),),
    "bias": ("none",),
    "dora": (False,),
    "kind": ("lora",),
}
"""What these engines are tried with, of axes that have more values for others."""

FSDP_LIMITS = (
    Limit(
        "FSDP2 expects one dtype in each group (_init_mp_dtypes, "
        "torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py)",
        when={"dtype": ("mixed",)},
    ),
    Limit(
        "accelerate makes a new model of the class, which FSDP2 has changed (compile_regions, "
        "accelerate/utils/other.py)",
        when={"wrapper": ("regional",)},
    ),
    Limit(
        "FSDP2 has derived a class before the suite can name it",
        unless={"class_name": ("",)},
    ),
    Limit(
        "transformers copies rows of plain tensors into DTensors (_get_resized_embeddings, "
        "modeling_utils.py)",
        when={"vocabulary": ("resized",)},
    ),
)
"""What cannot be trained once FSDP2 has been applied to a model that is loaded."""

NO_QLORA = (
    "PEFT asks 4-bit weights for fields that they have lost as DTensors (compress_statistics, "
    "peft/tuners/lora/bnb.py)"
)

Shape = Callable[[int], dict[str, int]]
"""From a number of ranks to the sizes in ``DistributedConfig``."""


def _loading(shape: Shape, case: Case) -> dict[str, Any]:
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(**shape(case.world_size))}


def _trains(shape: Shape, trainer: Any, wrapped: Any) -> bool:
    if not getattr(trainer, "is_distributed_loading_by_transformers", False):
        return False
    used = trainer.model.config.distributed_config
    wanted = shape(trainer.args.world_size)
    sizes = ("tp_size", "fsdp_size", "dp_replicate_size", "ep_size")
    return {name: getattr(used, name) for name in sizes} == {
        name: wanted.get(name, 1) for name in sizes
    }


def spread(shape: Shape) -> dict[str, Any]:
    """The fields of an engine that spreads a model as it is loaded."""
    return {
        "requires": REQUIRES,
        "shards": True,
        "loading": partial(_loading, shape),
        "trains": partial(_trains, shape),
    }


FSDP_TRANSFORMERS = Engine(
    name="fsdp-transformers",
    place=63,
    text="FSDP2 applied by transformers as the model is loaded; adapters are whole on every rank",
    unavailable={"qlora": NO_QLORA},
    axes=TRIED,
    limits=FSDP_LIMITS,
    no_odd_parameters=NO_ODD_PARAMETERS,
    **spread(lambda ranks: {"fsdp_size": ranks}),
)
