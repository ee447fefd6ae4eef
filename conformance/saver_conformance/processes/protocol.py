"""What the suite and a rank send each other."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import Literal, Self

Status = Literal["returned", "raised", "unavailable", "died", "hung"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request on one rank.

    Attributes:
        status: ``unavailable`` when a library or an engine is missing here; ``died`` and ``hung``
            are said by the suite on behalf of a rank that cannot answer.
        detail: traceback, stacks or reason; when it returned, what was requested.
        seconds: time that the request took on the rank.
        place: the saver's own innermost frame, where it did not return; empty if none is known.
    """

    status: Status
    detail: str = ""
    seconds: float = 0.0
    place: str = ""


@dataclass(frozen=True, slots=True)
class RankSettings:
    """How a rank is set up.

    Attributes:
        stacks: file that receives the stacks of all threads on SIGUSR1 and on a crash.
        prepare: module that has ``prepare(case, folder)``.
        group: ``gloo`` or ``nccl`` joins a process group described by the environment; empty
            joins none.
    """

    stacks: str
    prepare: str
    group: str


@dataclass(frozen=True, slots=True)
class ServerStart:
    """How the server of ranks is set up, passed as its only argument.

    Attributes:
        socket: descriptor of the socket on which it is asked for ranks.
        parent: process id of the process that started it, which it does not outlive.
        imports: modules that it imports before it forks.
    """

    socket: int
    parent: int
    imports: tuple[str, ...]

    def to_json(self) -> str:
        """The settings as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The settings that ``to_json`` wrote."""
        return cls(**json.loads(text))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
