"""What an engine cannot train, whoever saves."""

from __future__ import annotations

from saver_conformance.cases.case import Case, Engine


def why_untrainable(case: Case) -> str:
    """Why the engine of ``case`` cannot train it; empty when it can."""
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


def why_no_odd_parameters(engine: Engine) -> str:
    """Why ``engine`` takes no parameters of 0 dimensions or elements; empty when it does.

    All engines take buffers of these shapes.
    """
    if engine in ("fsdp1", "fsdp2"):
        return "FSDP refuses scalar parameters; FSDP2 fails to gather empty ones (_chunk_cat)"
    if engine.startswith("zero"):
        return "DeepSpeed broadcasts views that scalar parameters do not have (engine.py)"
    return ""
