"""torch's FullyShardedDataParallel, with flat parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case

NO_ODD_PARAMETERS = "FSDP refuses scalar parameters; FSDP2 fails to gather empty ones (_chunk_cat)"


def fsdp_config(case: Case, version: int) -> dict[str, Any]:
    """What both versions of FSDP are configured with.

    Args:
        case: what is trained.
        version: 1 or 2.
    """
    return {
        "version": version,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": list(case.family.layers),
        "state_dict_type": "FULL_STATE_DICT",
        "final_state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
        "activation_checkpointing": case.wrapper == "checkpointing",
    }


def arguments(case: Case) -> dict[str, Any]:
    """The arguments of ``TrainingArguments``."""
    own = {"use_orig_params": True, "sync_module_states": False}
    return {"fsdp": True, "fsdp_config": {**fsdp_config(case, 1), **own}}


def offloads(wrapped: Any) -> bool:
    """Whether FSDP1 keeps the shards of ``wrapped`` in host memory."""
    return bool(wrapped.cpu_offload.offload_params)


def _trains(trainer: Any, wrapped: Any) -> bool:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return isinstance(wrapped, FullyShardedDataParallel) and not offloads(wrapped)


@contextmanager
def whole(root: Any, modify: bool) -> Iterator[list[Any]]:
    """The parameters, gathered by FSDP1 itself."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(root, writeback=modify):
        yield list(root.parameters())


FSDP1 = Engine(
    name="fsdp1",
    place=20,
    text="torch's FullyShardedDataParallel; each rank holds a part of each flat parameter",
    shards=True,
    pairs=True,
    seconds=0.48,
    limits=(
        Limit(
            "a flat parameter holds one dtype (torch/distributed/fsdp/_flat_param.py)",
            when={"dtype": ("mixed",)},
        ),
        Limit(
            "accelerate's regional compilation recurses without end into FSDP1 modules",
            when={"wrapper": ("regional",)},
        ),
        Limit(
            "recomputing, FSDP1 does not cast the inputs of the adapters' own units again",
            modes="*lora-*",
            when={"wrapper": ("checkpointing",)},
            unless={"dtype": ("float32",)},
        ),
        Limit(
            "DoRA reads base weights outside of the wrapped forward, where they are flat shards",
            when={"dora": (True,)},
        ),
    ),
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=arguments,
    trains=_trains,
    whole=whole,
)
