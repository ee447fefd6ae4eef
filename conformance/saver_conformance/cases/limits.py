"""What an engine cannot train, whoever saves."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from saver_conformance.cases.case import Case, Engine


def why_untrainable(case: Case) -> str:
    """Why the engine of ``case`` cannot train it; empty when it can."""
    values = _values(case)
    for limit in case.family.limits:
        if limit.holds(values, case.mode.name):
            return limit.why
    if case.mode.engine == "fsdp1" and case.dtype == "mixed":
        return "a flat parameter holds one dtype (torch/distributed/fsdp/_flat_param.py)"
    if case.mode.engine == "fsdp1" and case.wrapper == "regional":
        return "accelerate's regional compilation recurses without end into FSDP1 modules"
    checkpointing = case.wrapper == "checkpointing"
    if case.mode.engine == "fsdp1" and case.adapter and checkpointing and case.dtype != "float32":
        return "recomputing, FSDP1 does not cast the inputs of the adapters' own units again"
    dora = case.adapter is not None and case.adapter.dora
    if case.mode.engine == "fsdp1" and dora:
        return "DoRA reads base weights outside of the wrapped forward, where they are flat shards"
    if case.mode.name == "qlora-zero3" and dora:
        return "DeepSpeed gathers 4-bit weights for DoRA as if it had partitioned them"
    return ""


def _values(case: Case) -> dict[str, Any]:
    """The values of ``case`` on the axes."""
    own = {item.name: getattr(case, item.name) for item in fields(case)}
    adapter = case.adapter
    if adapter is None:
        return own
    own |= {item.name: getattr(adapter, item.name) for item in fields(adapter)}
    return own | {"targets": case.family.selection_of(adapter.targets)}


def why_no_odd_parameters(engine: Engine) -> str:
    """Why ``engine`` takes no parameters of 0 dimensions or elements; empty when it does.

    All engines take buffers of these shapes.
    """
    if engine in ("fsdp1", "fsdp2"):
        return "FSDP refuses scalar parameters; FSDP2 fails to gather empty ones (_chunk_cat)"
    if engine.startswith("zero"):
        return "DeepSpeed broadcasts views that scalar parameters do not have (engine.py)"
    return ""
