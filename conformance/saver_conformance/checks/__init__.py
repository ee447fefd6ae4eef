"""The checks, one module an area; importing the package registers them all."""

from saver_conformance.checks import (
    adapter,
    crash,
    files,
    format,
    keep,
    meta,
    portable,
    purity,
    ranks,
    reload,
    tensor,
)
from saver_conformance.checks.registry import Check, ReadersAsked, Results, applicable, checks, run

__all__ = [
    "Check",
    "ReadersAsked",
    "Results",
    "adapter",
    "applicable",
    "checks",
    "crash",
    "files",
    "format",
    "keep",
    "meta",
    "portable",
    "purity",
    "ranks",
    "reload",
    "run",
    "tensor",
]
