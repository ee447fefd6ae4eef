"""One rank of a world: a process that stays up and takes case after case.

Forked by ``fork_server.py``, never started by hand. Requests and answers are lines of JSON on two
pipes that are neither stdout nor stderr, so whatever a saver prints cannot garble them. Torch is
imported only where the workload or a process group needs it.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from saver_conformance.folder.contents import read_contents
from saver_conformance.observation.process_diff import OUTPUT, changes
from saver_conformance.processes.forked_save import ForkedSave, save_in_fork
from saver_conformance.processes.protocol import Answer, RankSettings
from saver_conformance.processes.reconnect import connect_again
from saver_conformance.processes.traceback_text import describe_exception, headline, place_of

Saver = Callable[[Any, Any, Any], object]


class SaverNotFoundError(Exception):
    """The address ``package.module:function`` leads to no function."""


def find_saver(address: str) -> Saver:
    """Import the function at ``package.module:function``.

    Raises:
        SaverNotFoundError: there is none, or its module cannot be imported.
    """
    module_name, separator, path = address.partition(":")
    if not (module_name and separator and path):
        raise SaverNotFoundError(f"{address!r} is no saver; write package.module:function")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module that ends the process is not importable
        told = describe_exception(error)
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        ):
            told = f"{headline(error)}; run it where the saver is importable, or set PYTHONPATH"
        raise SaverNotFoundError(
            f"the saver's module {module_name!r} is not importable: {told}"
        ) from error
    for name in path.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise SaverNotFoundError(f"module {module_name!r} has no function {path!r}")
    _check_signature(address, found)
    saver: Saver = found
    return saver


def _check_signature(address: str, saver: Callable[..., object]) -> None:
    """Raise unless ``saver`` takes three arguments, or nobody can tell."""
    if hasattr(saver, "__signature__"):  # what a decorator says need not be what it does
        return
    try:
        signature = inspect.signature(saver, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind("cfg", "trainer", "model")
    except TypeError as error:
        name = address.partition(":")[2]
        raise SaverNotFoundError(
            f"{address} is called as function(cfg, trainer, model) on every rank, which "
            f"{name}{signature} does not take: {error}"
        ) from error


class Rank:
    """The state between requests: the imported workload, the saver and the prepared case."""

    def __init__(self, settings: RankSettings) -> None:
        self._settings = settings
        self._savers: dict[str, Saver] = {}
        self._prepared: Any = None
        self._seen: dict[str, dict[str, str]] = {}
        self._output = Path()
        self._left: Mapping[str, str] | None = None

    def answer(self, request: dict[str, Any]) -> Answer:
        """Do what ``request`` says; whatever it raises becomes the answer."""
        do = request.pop("do")
        step: Callable[..., str | None] = getattr(self, f"_{do}")
        started = time.monotonic()
        try:
            detail = step(**request)
        except SaverNotFoundError as error:
            return Answer("unavailable", str(error))
        except BaseException as error:
            seconds = time.monotonic() - started
            if _is_unavailable(error):
                return Answer("unavailable", str(error), seconds)
            if do == "save":
                module = sys.modules.get(request["saver"].partition(":")[0])
                place = place_of(error, module)
                return Answer("raised", describe_exception(error), seconds, place)
            return Answer("raised", traceback.format_exc(), seconds)
        return Answer("returned", detail or "", time.monotonic() - started)

    def _join(self) -> None:
        importlib.import_module(self._settings.prepare)
        if self._settings.group:
            import torch.distributed as dist

            dist.init_process_group(self._settings.group)

    def _load(self, saver: str) -> None:
        self._savers[saver] = find_saver(saver)

    def _prepare(self, case: str, folder: str) -> None:
        from saver_conformance.cases.case import Case

        workload = importlib.import_module(self._settings.prepare)
        self._prepared = workload.prepare(Case.from_json(case), Path(folder))
        self._output, self._left = Path(folder) / "out", None
        self._seen = self._prepared.look()

    def _save(self, saver: str) -> None:
        self._call(saver)
        self._left = read_contents(self._output)

    def _call(self, saver: str) -> None:
        case = self._prepared
        self._savers[saver](case.cfg, case.trainer, case.model)

    def _compare(self) -> str:
        found = [*changes(self._seen, self._prepared.look())]
        if self._left is not None:
            now = read_contents(self._output)
            found += changes({OUTPUT: self._left}, {OUTPUT: now})
        return json.dumps([asdict(change) for change in found])

    def _step(self, path: str) -> None:
        self._prepared.step(Path(path))

    def _save_in_fork(
        self, saver: str, strace: list[list[str]], meeting: str, limit: float, grace: float
    ) -> str:
        number, ranks = (int(os.environ.get(*v)) for v in (("RANK", "0"), ("WORLD_SIZE", "1")))
        how = ForkedSave(strace[number], Path(meeting), number, limit, grace, ranks)
        connect = partial(connect_again, how.meeting) if self._settings.group else lambda: None
        return json.dumps(asdict(save_in_fork(partial(self._call, saver), how, connect)))

    def _train(self, module: str, case: str, folder: str, plan: dict[str, Any], saver: str) -> None:
        from saver_conformance.cases.case import Case

        self._close()
        workload = importlib.import_module(module)
        prepare = find_saver(saver) if saver else None
        workload.train(Case.from_json(case), Path(folder), workload.Plan(**plan), prepare)

    def _train_in_fork(self, training: dict[str, Any], strace: list[str], **how: Any) -> str:
        self._close()
        forked = ForkedSave(strace, Path(how["meeting"]), 0, how["limit"], how["grace"])
        return json.dumps(asdict(save_in_fork(partial(self._train, **training), forked)))

    def _find_last(self, module: str, folders: dict[str, str]) -> str:
        return json.dumps(importlib.import_module(module).last_steps(folders))

    def _meet(self) -> None:
        if not self._settings.group:
            return
        import torch
        import torch.distributed as dist

        # Of another value on each rank: what one of them has left over from an earlier collective
        # would be found in the sum.
        total = torch.tensor([2 ** dist.get_rank()])
        for _ in range(2):
            dist.barrier()
            dist.all_reduce(total)
        size = dist.get_world_size()
        if total.item() != size * (2**size - 1):
            raise RuntimeError(f"the ranks' numbers add up to {total.item()}")

    def _close(self) -> None:
        case, self._prepared = self._prepared, None
        if case is not None:
            case.close()


def _is_unavailable(error: BaseException) -> bool:
    from saver_conformance.errors import Unavailable

    return isinstance(error, Unavailable)


def _allow_open_files() -> None:
    """Lift the limit: torch keeps the process groups of device meshes, a dozen files for each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a lower limit of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(requests: int, answers: int, **settings: str) -> NoReturn:
    """Answer requests until the suite closes the pipe, then end the process.

    Args:
        requests: descriptor from which requests are read.
        answers: descriptor to which answers are written.
        settings: how this rank is set up, see ``RankSettings``.
    """
    _allow_open_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else what is printed before a crash is lost
            stream.reconfigure(line_buffering=True)
    rank = Rank(RankSettings(**settings))
    stacks = Path(settings["stacks"]).open("w")  # noqa: SIM115 - open as long as the process lives
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    with (
        os.fdopen(requests, encoding="utf-8") as lines,
        os.fdopen(answers, "w", encoding="utf-8") as output,
    ):
        for line in lines:
            answer = rank.answer(json.loads(line))
            output.write(json.dumps(asdict(answer)) + "\n")
            output.flush()
    sys.stdout.flush()
    os._exit(0)  # no destructor of a training framework may delay or hang the end
