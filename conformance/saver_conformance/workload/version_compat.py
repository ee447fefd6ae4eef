"""The one table of what differs between the library versions that the suite runs on.

The workload is written for the newest versions (``constraints.txt``). Where an older one that a
framework pins cannot train, a row says what it lacks, since when that is there, and what is done
instead: ``DIFFERENCES`` has what can be fixed in the process, ``LIMITS`` what cannot, which makes
cases unavailable. None of it takes part in what a saver does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from saver_conformance.cases.case import Case
from saver_conformance.cases.limit import Limit
from saver_conformance.cases.limits import values_of
from saver_conformance.cases.requirement import why_missing


@dataclass(frozen=True, slots=True)
class Difference:
    """What versions of a library before some one need.

    Attributes:
        library: its distribution's name.
        before: the first version that does not need it.
        lacks: what goes wrong without.
        adjust: does what is needed; None where whoever asks ``is_needed`` does it.
    """

    library: str
    before: str
    lacks: str
    adjust: Callable[[], None] | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the installed version is an older one."""
        return _is_before(self.library, self.before)


@cache
def adjust(*libraries: str) -> None:
    """Do what the installed versions need; a second call changes nothing.

    Args:
        libraries: those that are used in this process; none: all.
    """
    for row in DIFFERENCES:
        if row.adjust and (not libraries or row.library in libraries) and row.is_needed:
            row.adjust()


def needed() -> tuple[Difference, ...]:
    """The rows that the installed versions need."""
    return tuple(row for row in DIFFERENCES if row.is_needed)


@dataclass(frozen=True, slots=True)
class VersionLimit:
    """What versions of a library before some one cannot train.

    Attributes:
        requirement: what is needed instead, as pip reads it.
        limit: the cases.
        beside: versions of another library that need it, as pip reads them; "" for any.
    """

    requirement: str
    limit: Limit
    beside: str = ""


def why_unable(case: Case) -> str:
    """Why the installed versions cannot train ``case``; empty when they can."""
    values, mode = values_of(case), str(case.mode)
    for row in LIMITS:
        concerned = not (row.beside and why_missing(mode, [row.beside]))
        if (
            concerned
            and row.limit.holds(values, mode)
            and (missing := why_missing(mode, [row.requirement]))
        ):
            return f"{missing}: {row.limit.why}"
    return ""


def _is_before(library: str, limit: str) -> bool:
    try:
        return Version(version(library)) < Version(limit)
    except PackageNotFoundError:
        return False


def _cast_added_adapters() -> None:
    import inspect

    from peft import PeftModel

    add = PeftModel.add_adapter
    if "autocast_adapter_dtype" in inspect.signature(add).parameters:
        return

    def add_and_cast(
        self: Any,
        name: str,
        config: Any,
        *rest: Any,
        autocast_adapter_dtype: bool = True,
        **others: Any,
    ) -> None:
        add(self, name, config, *rest, **others)
        if hasattr(self.base_model, "_cast_adapter_dtype"):
            self.base_model._cast_adapter_dtype(
                adapter_name=name, autocast_adapter_dtype=autocast_adapter_dtype
            )

    PeftModel.add_adapter = add_and_cast


def _count_gradients_everywhere() -> None:
    from torch import nn

    setattr(nn.Module, "ds_grads_remaining", 0)  # noqa: B010 - a type checker knows no such name


def _gather_data() -> None:
    from deepspeed.runtime import utils

    gather = utils.all_gather_into_tensor_dp_groups
    if getattr(gather, "gathers_data", False):
        return

    def gather_data(flat: Any, parts: Any, groups: Any) -> Any:
        return gather(
            [tensor.data for tensor in flat],
            [[tensor.data for tensor in group] for group in parts],
            groups,
        )

    gather_data.gathers_data = True  # type: ignore[attr-defined]
    utils.all_gather_into_tensor_dp_groups = gather_data


def _await_every_gather() -> None:
    from deepspeed.runtime.zero.partition_parameters import Init

    gather = Init._allgather_params_coalesced
    if getattr(gather, "awaits_all", False):
        return

    def gather_one_by_one(
        self: Any, parameters: Sequence[Any], hierarchy: int = 0, quantize: bool = False
    ) -> None:
        for parameter in parameters:
            gather(self, [parameter], hierarchy, quantize)

    gather_one_by_one.awaits_all = True  # type: ignore[attr-defined]
    Init._allgather_params_coalesced = gather_one_by_one


FSDP_BY_WORDS = Difference(
    library="transformers",
    before="5.16",
    lacks="TrainingArguments takes fsdp=True for the whole model as one unit; its layers are units "
    "only by the word auto_wrap, which newer versions take too, and the shards are in host memory "
    "only by the word offload (training_args.py)",
)

DIFFERENCES: Sequence[Difference] = (
    FSDP_BY_WORDS,
    Difference(
        library="peft",
        before="0.20",
        lacks="add_adapter leaves a second adapter in another dtype than the first, and has no "
        "autocast_adapter_dtype to say which (peft_model.py)",
        adjust=_cast_added_adapters,
    ),
    Difference(
        library="deepspeed",
        before="0.19",
        lacks="ZeRO-3 counts gradients on a module that PEFT trains whole before it has a counter "
        "(runtime/zero/parameter_offload.py)",
        adjust=_count_gradients_everywhere,
    ),
    Difference(
        library="deepspeed",
        before="0.19",
        lacks="ZeRO-1 and 2 gather weights into views that autograd guards since torch 2.13 "
        "(runtime/utils.py, all_gather_into_tensor_dp_groups)",
        adjust=_gather_data,
    ),
    Difference(
        library="deepspeed",
        before="0.19",
        lacks="ZeRO-3 gathers parameters together and awaits the last alone; on a processor the "
        "others may not have arrived (runtime/zero/partition_parameters.py)",
        adjust=_await_every_gather,
    ),
)
"""What is fixed; a module of the suite that asks for a version is in the wrong place."""

LIMITS: Sequence[VersionLimit] = (
    VersionLimit(
        requirement="peft>=0.21",
        limit=Limit(
            "PEFT takes modules whose names look like its own (lora_head) for its own: it trains "
            "them beside the adapter, and its loader does not find them",
            modes="lora-*",
            when={"architecture": ("custom",)},
        ),
    ),
    VersionLimit(
        requirement="accelerate>=1.12",
        limit=Limit(
            "transformers has no replicas of FSDP2 without ParallelismConfig (training_args.py)",
            modes="*-fsdp2,*-hsdp",
            when={"replicas": (2,)},
        ),
    ),
    VersionLimit(
        requirement="accelerate>=1.15",
        limit=Limit(
            "accelerate shards weights of two dtypes as they are, which FSDP2 refuses "
            "(utils/fsdp_utils.py, fsdp2_prepare_model)",
            modes="full-fsdp2,full-fsdp2-offload,full-hsdp",
            when={"dtype": ("mixed",)},
        ),
    ),
    VersionLimit(
        requirement="peft>=0.21",
        limit=Limit(
            "OFT of 4-bit layers is made without its configuration (tuners/oft/bnb.py)",
            modes="qlora-*",
            when={"kind": ("oft",)},
        ),
    ),
    VersionLimit(
        requirement="peft>=0.22",
        beside="transformers>=5.24",
        limit=Limit(
            "add_adapter of transformers refuses older versions (integrations/peft.py)",
            modes="*lora-*",
            when={"kind": ("add_adapter",)},
        ),
    ),
    VersionLimit(
        requirement="deepspeed>=0.19",
        limit=Limit(
            "recomputing, ZeRO-3 finds parameters of adapters partitioned that were whole in the "
            "forward (CheckpointError of torch.utils.checkpoint)",
            modes="*lora-zero3*",
            when={"wrapper": ("checkpointing",)},
        ),
    ),
)
"""What is unavailable."""
