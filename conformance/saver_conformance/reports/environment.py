"""What a run ran on: versions, machine and time, for the report."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from saver_conformance.processes.devices import count_accelerators
from saver_conformance.spec import VERSION

SPEC = "spec"
"""The name of the spec among the versions."""
SUITE = "canonical-saver"
"""The distribution that this package belongs to."""

_STACK = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "deepspeed",
    "bitsandbytes",
    "trl",
    "axolotl",
    "llamafactory",
)


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """Where and when a verdict was reached.

    Attributes:
        time: the end of the run, in UTC, to the second.
        versions: by name: the spec, Python, the suite, the libraries that train and save, and the
            distributions that the saver comes from; those that are not installed are left out.
        system: name of the operating system and the machine's architecture.
        cores: CPU cores that the run may use.
        accelerators: accelerators that it sees; worlds with more ranks train on the CPU.
    """

    time: str
    versions: dict[str, str]
    system: str
    cores: int
    accelerators: int


def read_environment(saver: str) -> RunEnvironment:
    """What this process runs on, with the version of what ``saver`` is a part of."""
    names = dict.fromkeys((SUITE, *_distributions_of(saver), *_STACK))
    found = {name: version for name in names if (version := _version(name))}
    return RunEnvironment(
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions={SPEC: VERSION, "python": platform.python_version(), **found},
        system=f"{platform.system()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)),
        accelerators=count_accelerators(),
    )


def _distributions_of(saver: str) -> Iterator[str]:
    package = saver.partition(":")[0].partition(".")[0]
    yield from metadata.packages_distributions().get(package, ())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
