"""FSDP2 within replicas: hybrid sharding."""

from __future__ import annotations

from dataclasses import replace

from saver_conformance.cases.engines.fsdp2 import FSDP2

HSDP = replace(
    FSDP2,
    name="hsdp",
    place=50,
    text="FSDP2 within each of two replicas (hybrid sharding); two ranks hold each part",
    world_sizes=(4,),
    replicas=(2,),
    pairs=False,
)
