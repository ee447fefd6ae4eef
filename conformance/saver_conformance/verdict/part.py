"""What a part of a run says about the whole, so that the parts can be put together."""

from __future__ import annotations

from dataclasses import dataclass

from saver_conformance.cases.case import Mode
from saver_conformance.cases.shards import Shard
from saver_conformance.verdict.waivers import Waiver


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a run a verdict is about, and what the verdict of the whole needs.

    Attributes:
        shard: the part.
        modes: the claimed modes of the whole run.
        without: patterns of the clauses that the saver has no part in.
        waivers: clauses that are known to be broken.
    """

    shard: Shard
    modes: tuple[Mode, ...]
    without: tuple[str, ...]
    waivers: tuple[Waiver, ...]
