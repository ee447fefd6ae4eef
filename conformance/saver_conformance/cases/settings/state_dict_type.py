"""``state_dict_type`` of FSDP: in which form FSDP's own state dicts come."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.setting import Arguments, Setting

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _change(kind: str, arguments: Arguments, case: Case) -> dict[str, Any]:
    del case
    kinds = {"state_dict_type": kind, "final_state_dict_type": kind}
    return {**arguments, "fsdp_config": {**arguments["fsdp_config"], **kinds}}


SHARDED = Setting(
    name="sharded-state-dict",
    place=10,
    text="FSDP's `state_dict_type` is SHARDED_STATE_DICT",
    modes=("*-fsdp1", "*-fsdp1-offload", "*-fsdp2", "*-fsdp2-offload", "*-hsdp"),
    change=partial(_change, "SHARDED_STATE_DICT"),
)

LOCAL = Setting(
    name="local-state-dict",
    place=11,
    text="FSDP's `state_dict_type` is LOCAL_STATE_DICT, which FSDP2 does not have",
    modes=("*-fsdp1", "*-fsdp1-offload"),
    change=partial(_change, "LOCAL_STATE_DICT"),
)
