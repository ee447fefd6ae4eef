"""A world: the rank processes of one training run, kept up from case to case.

A rank that raises, dies or hangs is an answer like any other, with its traceback, signal or
stacks; the suite's process is never at its mercy.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from saver_conformance.cases.case import Case, WorldKey
from saver_conformance.errors import HarnessFailedError
from saver_conformance.observation.observation import RankOutcome
from saver_conformance.processes import interrupts
from saver_conformance.processes.devices import count_accelerators
from saver_conformance.processes.forked_process import ForkedProcess, ForkServer
from saver_conformance.processes.output_lines import Listener, following
from saver_conformance.processes.protocol import Answer, RankSettings
from saver_conformance.processes.time_limit import PERIOD, TimeLimit
from saver_conformance.processes.traceback_text import of_crash, place_in, without_suite

START_LIMIT = 300.0
"""Seconds for all ranks to start, import their framework and join the process group."""
PREPARE_LIMIT = 300.0
"""Seconds to build and train one case."""
SAVE_LIMIT = 30.0
"""Seconds after which a saver that has not returned is reported as hanging."""
COMPARE_LIMIT = 120.0
"""Seconds to look at all that a save must leave as it is."""
FORKED_SAVE_GRACE = 60.0
"""Seconds for a forked save besides the save itself."""
CLOSE_LIMIT = 30.0
"""Seconds to free what a case holds; a world that needs longer is replaced."""
MEET_LIMIT = 10.0
"""Seconds for ranks to show that they still hear each other, once a saver has raised."""
GRACE = 5.0
"""Seconds that the other ranks get once one has failed: it may have left them waiting."""
STACKS_LIMIT = 2.0
"""Seconds that a hanging rank gets to write down its stacks."""
LOG_TAIL = 2000
"""Characters of a rank's output, since the saver was called, that go with a finding."""

_LAUNCHER = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_NO_ACCELERATOR = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}


@dataclass(slots=True)
class _Process:
    """One rank, seen from the suite."""

    rank: int
    process: ForkedProcess
    requests: int
    answers: int
    log: Path
    stacks: Path
    buffer: bytes = field(default=b"")
    log_begin: int = 0

    def mark_log(self) -> None:
        """Leave out of the log what stands there now."""
        self.log_begin = self.log.stat().st_size

    def read_answer(self) -> Answer | None:
        """The next complete answer, or None; never waits."""
        while b"\n" not in self.buffer:
            try:
                chunk = os.read(self.answers, 1 << 16)
            except BlockingIOError:
                return None
            if not chunk:
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return Answer(**json.loads(line))

    def write_stacks(self) -> str:
        """Every thread's Python stack, as the rank's fault handler writes it."""
        before = self.stacks.stat().st_size
        self.process.send_signal(signal.SIGUSR1)
        size, deadline = before, time.monotonic() + STACKS_LIMIT
        while time.monotonic() < deadline:
            time.sleep(0.1)
            grown = self.stacks.stat().st_size
            if grown > before and grown == size:
                break
            size = grown
        text = self.stacks.read_bytes()[before:].decode(errors="replace").strip()
        return text or "(the rank wrote no stacks)"

    def describe_end(self) -> Answer:
        """How the process ended, with what it printed last."""
        code = self.process.wait()
        end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        stacks = self.stacks.read_text(errors="replace")
        log = self.read_log()
        parts = (end, of_crash(stacks), f"it printed:\n{log}" if log else "")
        return Answer("died", "\n".join(filter(None, parts)), place=place_in(stacks))

    def read_log(self) -> str:
        """The last lines that the rank has printed since its log was marked."""
        with self.log.open("rb") as log:
            log.seek(self.log_begin)
            return log.read().decode(errors="replace")[-LOG_TAIL:].strip()


class World:
    """The ranks of one world, from start to stop.

    Use it as a context manager, or call ``stop``; either leaves neither a process nor a file.
    """

    def __init__(
        self,
        key: WorldKey,
        *,
        prepare: str,
        process_group: bool = True,
        scratch: Path | None = None,
        server: ForkServer | None = None,
    ) -> None:
        """Start the processes; ``join`` waits for them.

        Args:
            key: how many ranks, and for which family of engines.
            prepare: module that has ``prepare(case, folder)``.
            process_group: whether worlds of several ranks join a process group.
            scratch: where its folder is made; None is the folder for temporary files.
            server: what the ranks are forked from; None starts one for this world alone.
        """
        self.key = key
        self.folder = Path(tempfile.mkdtemp(prefix="saver-conformance-world-", dir=scratch))
        self._processes: list[_Process] = []
        self._server = server or start_server(prepare, self.folder)
        self._owns_server = server is None
        group = _choose_backend(key) if process_group and key.size > 1 else ""
        port = _find_free_port()
        try:
            for rank in range(key.size):
                self._processes.append(self._spawn(rank, port, prepare, group))
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the ranks, in order."""
        return tuple(item.process.pid for item in self._processes)

    @property
    def threads(self) -> int:
        """Threads of the rank that has most; those of ranks that have ended do not count."""
        return max(count_threads(item.process.pid) for item in self._processes)

    def join(self) -> None:
        """Wait until every rank is up and in the process group.

        Raises:
            HarnessFailedError: some rank is not.
        """
        answers = self._ask({"do": "join"}, START_LIMIT)
        for rank, answer in enumerate(answers):
            if answer.status != "returned":
                raise HarnessFailedError(
                    f"rank {rank} of {self.key.size} did not start:\n{answer.detail}"
                )

    def load(self, saver: str) -> tuple[Answer, ...]:
        """Import the saver on every rank; ``unavailable`` says that there is none."""
        return self._ask({"do": "load", "saver": saver}, START_LIMIT)

    def prepare(self, case: Case, folder: Path) -> tuple[Answer, ...]:
        """Build, train and snapshot ``case`` on every rank."""
        request = {"do": "prepare", "case": case.to_json(), "folder": str(folder)}
        return self._ask(request, PREPARE_LIMIT)

    def save(
        self, saver: str, limit: float = SAVE_LIMIT, listen: Listener | None = None
    ) -> tuple[RankOutcome, ...]:
        """Call the loaded saver on all ranks at once, and say how it ended on each.

        What the ranks print meanwhile is passed on to ``listen``.
        """
        for process in self._processes:
            process.mark_log()
        logs = {process.rank: (process.log, process.log_begin) for process in self._processes}
        with following(logs, listen):
            answers = self._ask({"do": "save", "saver": saver}, limit)
        return tuple(
            RankOutcome(
                rank,
                "raised" if answer.status == "unavailable" else answer.status,
                answer.detail,
                answer.seconds,
                answer.place,
            )
            for rank, answer in enumerate(answers)
        )

    def compare(self) -> tuple[Answer, ...]:
        """Ask every rank what has changed on it since ``prepare``; JSON in the details."""
        return self._ask({"do": "compare"}, COMPARE_LIMIT)

    def step(self, path: Path) -> tuple[Answer, ...]:
        """Train one more step and have rank 0 write the weights to ``path``."""
        return self._ask({"do": "step", "path": str(path)}, PREPARE_LIMIT)

    def save_in_fork(
        self, saver: str, strace: Sequence[list[str]], meeting: Path, limit: float, grace: float
    ) -> tuple[Answer, ...]:
        """Save in forked copies of the ranks; how it ended on each is JSON in the details."""
        request = {
            "do": "save_in_fork",
            "saver": saver,
            "strace": strace,
            "meeting": str(meeting),
            "limit": limit,
            "grace": grace,
        }
        return self._ask(request, limit + FORKED_SAVE_GRACE)

    def train(self, training: Mapping[str, Any]) -> tuple[Answer, ...]:
        """Train once more, see ``checkpoint_runs``; what was prepared is given back."""
        return self._ask({"do": "train", **training}, PREPARE_LIMIT)

    def train_in_fork(
        self, training: Mapping[str, Any], strace: list[str], meeting: Path, limit: float
    ) -> Answer:
        """Train in a forked copy of the only rank; how it ended is JSON in the detail."""
        request = {
            "do": "train_in_fork",
            "training": training,
            "strace": strace,
            "meeting": str(meeting),
            "limit": limit,
            "grace": limit,
        }
        return self._ask(request, limit + FORKED_SAVE_GRACE)[0]

    def find_last(self, module: str, folders: Mapping[str, str]) -> Answer:
        """The checkpoint that a loader finds in each folder; JSON in the detail."""
        return self._ask({"do": "find_last", "module": module, "folders": folders}, PREPARE_LIMIT)[
            0
        ]

    def meet(self) -> bool:
        """Whether the ranks still hear each other, none a collective ahead of another."""
        answers = self._ask({"do": "meet"}, MEET_LIMIT)
        return all(answer.status == "returned" for answer in answers)

    def close(self) -> bool:
        """Free what the case holds; False when the world is of no more use."""
        answers = self._ask({"do": "close"}, CLOSE_LIMIT)
        return all(answer.status == "returned" for answer in answers)

    def stop(self) -> None:
        """Kill the ranks with all that they started, wait for them, remove the folder."""
        for item in self._processes:
            item.process.kill()
        for item in self._processes:
            item.process.end()
            os.close(item.requests)
            os.close(item.answers)
        self._processes.clear()
        if self._owns_server:
            self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, rank: int, port: int, prepare: str, group: str) -> _Process:
        log, stacks = self.folder / f"rank-{rank}.log", self.folder / f"rank-{rank}.stacks"
        stacks.touch()
        request_end, requests = os.pipe()
        answers, answer_end = os.pipe()
        os.set_blocking(answers, False)
        settings = RankSettings(stacks=str(stacks), prepare=prepare, group=group)
        try:
            with log.open("wb") as output:
                process = self._server.start(
                    "saver_conformance.processes.rank:serve",
                    [request_end, answer_end],
                    asdict(settings),
                    _make_environment(self.key, rank, port, self.folder),
                    output.fileno(),
                )
        except BaseException:
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(request_end)
            os.close(answer_end)
        return _Process(rank, process, requests, answers, log, stacks)

    def _ask(self, request: Mapping[str, Any], limit: float) -> tuple[Answer, ...]:
        """Send ``request`` to all ranks and collect an answer for each, within ``limit``."""
        line = (json.dumps(request) + "\n").encode()
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):  # it died; seen below
                os.write(process.requests, line)
        started = time.monotonic()
        time_limit, waiting_since = TimeLimit(limit), f"did not return within {limit:g} s"
        answers: dict[int, Answer] = {}
        while len(answers) < len(self._processes):
            interrupts.check()
            pending = [item for item in self._processes if item.rank not in answers]
            for process, answer in _collect(pending, min(time_limit.left(), PERIOD)):
                answers[process.rank] = answer
                if answer.status != "returned" and time_limit.shorten(GRACE):
                    waiting_since = (
                        f"still waiting {GRACE:g} s after rank {process.rank} {answer.status}"
                    )
            if time_limit.left() <= 0:
                break
        for process in self._processes:
            if process.rank not in answers:
                stacks = process.write_stacks()
                answers[process.rank] = Answer(
                    "hung",
                    f"{waiting_since}\n{without_suite(stacks)}",
                    time.monotonic() - started,
                    place_in(stacks),
                )
        return tuple(answers[process.rank] for process in self._processes)


def _collect(pending: Sequence[_Process], timeout: float) -> list[tuple[_Process, Answer]]:
    """The answers that arrive next, or none when ``timeout`` seconds pass first."""
    watched = select.poll()
    for item in pending:
        watched.register(item.answers, select.POLLIN)
        watched.register(item.process.status, select.POLLIN)
    watched.poll(max(0.0, timeout) * 1000)
    collected = []
    for item in pending:
        item.process.hear()  # first: what it answered before its end is its answer
        if answer := item.read_answer():
            collected.append((item, answer))
        elif item.process.code is not None:
            collected.append((item, item.describe_end()))
    return collected


def count_threads(pid: int) -> int:
    """The threads of a process; 0 where it has ended."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def start_server(prepare: str, scratch: Path | None = None) -> ForkServer:
    """Start what ranks are forked from.

    Where there are accelerators it imports nothing for them: what has looked at one may not be
    forked, and ranks see others than it does.

    Args:
        prepare: module that has ``prepare(case, folder)``.
        scratch: where libraries put temporary files meanwhile; None is the usual place.
    """
    imports = () if count_accelerators() else (prepare,)
    return ForkServer(imports, without_accelerator(scratch))


def start_servers(
    prepare: str, reload: str, scratch: Path | None = None
) -> tuple[ForkServer, ForkServer]:
    """Start what ranks are forked from, and what reloads are: one for both if it can be.

    Args:
        prepare: module that has ``prepare(case, folder)``.
        reload: module that has ``reload(case, folder)``.
        scratch: where libraries put temporary files meanwhile; None is the usual place.
    """
    environment = without_accelerator(scratch)
    if count_accelerators():
        return start_server(prepare, scratch), ForkServer((reload,), environment)
    server = ForkServer((prepare, reload), environment)
    return server, server


def without_accelerator(scratch: Path | None = None) -> dict[str, str]:
    """The environment of processes that are in no world: they see no accelerator.

    Args:
        scratch: where libraries put temporary files; None is the usual place.
    """
    return _environment(scratch or Path(tempfile.gettempdir())) | _NO_ACCELERATOR


def _environment(temporary_files: Path) -> dict[str, str]:
    """What all ranks have, without what a launcher has left here."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHER and not name.startswith(("ACCELERATE_", "FSDP_"))
    }
    return environment | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TMPDIR": str(temporary_files),
    }


def _make_environment(key: WorldKey, rank: int, port: int, folder: Path) -> dict[str, str]:
    """The environment of a rank: what a launcher would set, on this machine alone."""
    environment = _environment(folder)  # what a saver forgets there goes with the world
    if count_accelerators() < key.size:
        environment |= _NO_ACCELERATOR
    node = key.node_of(rank)
    if key.nodes > 1 and count_accelerators() >= key.size:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, node))
    if key.size > 1:
        environment |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(node.index(rank)),
            "WORLD_SIZE": str(key.size),
            "LOCAL_WORLD_SIZE": str(len(node)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
    return environment


def _choose_backend(key: WorldKey) -> str:
    return "cpu:gloo,cuda:nccl" if count_accelerators() >= key.size else "gloo"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
