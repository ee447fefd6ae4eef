"""Is a save from an accelerator right, and as fast as the copy and the disk let it be?

``python -m benchmarks.gpu`` needs torch, transformers, PEFT and this checkout, no network, and at
most eight minutes. It writes ``gpu.json``, and ``gpu.md`` from it. Without an accelerator it takes
the CPU and small sizes, which shows that the script works and no more.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "reference"))  # last: an installed saver comes first

from benchmarks import models  # noqa: E402
from canonical_saver import prove, save_model  # noqa: E402

GB, MIB = 10**9, 2**20
PIECE = 8 * MIB
ROUNDS = 3
SMALL = 50 * MIB
"""Bytes of the models whose bytes are compared."""
LIMIT = 8 * 60.0
"""Seconds for all of it."""
PEAK = 64 * MIB
"""Bytes of the device that a save may need for a moment."""


@dataclass(frozen=True)
class Setting:
    """What all checks are given.

    Attributes:
        device: ``cuda``, ``xpu`` or ``cpu``.
        folder: where to save.
        small: bytes of the models whose bytes are compared.
        large: bytes of the model whose save is timed.
        ranks: processes of the check of FSDP2.
    """

    device: str
    folder: Path
    small: int
    large: int
    ranks: int

    @property
    def backend(self) -> str:
        """The backend that carries tensors between ranks on this device."""
        return {"cuda": "nccl", "xpu": "xccl"}.get(self.device, "gloo")

    def place(self, name: str) -> Path:
        """A new folder; its own name, which model cards have, is always the same."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name / "model"


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        name: what was looked at.
        status: ``holds``, ``broken``, or ``not run``.
        detail: what was found, or why it was not run.
        seconds: how long it took.
    """

    name: str
    status: str
    detail: str
    seconds: float


class BrokenError(Exception):
    """A check found something else than expected."""


class NotRunError(Exception):
    """This machine cannot run a check."""


def llama(size: int, device: str, dtype: torch.dtype = models.DTYPE) -> Any:
    """A Llama of about ``size`` bytes in bfloat16 on a device, the same wherever it is made."""
    model = models.empty(models.config(size)).to(dtype)
    model.to_empty(device=device)
    for tensor in (*model.parameters(), *model.buffers()):
        models.fill(tensor)
    return model


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each file below a folder by its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def expect_same(found: Path, expected: Path) -> str:
    """Compare two saves, byte by byte.

    Raises:
        BrokenError: they differ.
    """
    one, other = files_of(found), files_of(expected)
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    if names:
        raise BrokenError(f"expected the bytes of a save from main memory, found other {names}")
    return f"{len(one)} files, {sum(map(len, one.values())):,} bytes, as from main memory"


def save_both(setting: Setting, make: Callable[[str], Any], **options: Any) -> str:
    """Save what ``make`` makes on the device, and on the CPU, and compare."""
    found, expected = setting.place("found"), setting.place("expected")
    save_model(make(setting.device), found, **options)
    save_model(make("cpu"), expected, **options)
    return expect_same(found, expected)


def bfloat16(setting: Setting) -> str:
    """A whole model."""
    return save_both(setting, lambda device: llama(setting.small, device))


def cast(setting: Setting) -> str:
    """A model in float32 that is saved in bfloat16."""
    return save_both(
        setting, lambda device: llama(setting.small, device, torch.float32), dtype="bfloat16"
    )


def float8(setting: Setting) -> str:
    """Weights of 8 bits beside scales, as inference engines have them."""

    def make(device: str) -> nn.Module:
        model = nn.Module()
        values = torch.linspace(-4, 4, 1031 * 64).view(1031, 64)
        for name in ("float8_e4m3fn", "float8_e5m2"):
            weight = values.to(getattr(torch, name)).to(device)
            model.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        model.register_parameter("scale", nn.Parameter(torch.full((1031, 1), 0.5, device=device)))
        return model

    return save_both(setting, make)


def strided(setting: Setting) -> str:
    """Weights that do not lie in one run in memory, so that the device has to select elements."""

    def make(device: str) -> nn.Module:
        model = nn.Module()
        values = torch.arange(3_000_000, dtype=torch.float32, device=device).view(1500, 2000)
        model.register_parameter("turned", nn.Parameter(values.t()))
        model.register_parameter("every_third", nn.Parameter(values[:, ::3]))
        return model

    return save_both(setting, make)


def adapters(setting: Setting) -> str:
    """A LoRA beside a model."""
    from peft import LoraConfig, get_peft_model

    def make(device: str) -> Any:
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(llama(setting.small, device), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                models.fill(parameter)
        return model

    return save_both(setting, make)


def compiled(setting: Setting) -> str:
    """A model inside ``torch.compile`` that has run."""
    model = llama(setting.small, setting.device)
    wrapped: Any = torch.compile(model, backend="eager" if setting.device == "cpu" else "inductor")
    wrapped(torch.ones(1, 4, dtype=torch.long, device=setting.device))
    found, expected = setting.place("found"), setting.place("expected")
    save_model(wrapped, found)
    save_model(llama(setting.small, "cpu"), expected)
    return expect_same(found, expected)


def trained(setting: Setting) -> str:
    """A model just after a step whose work is still queued on the device."""
    model = llama(setting.small, setting.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tokens = torch.ones(1, 16, dtype=torch.long, device=setting.device)
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    found, expected = setting.place("found"), setting.place("expected")
    save_model(model, found)
    save_model(model.to("cpu"), expected)
    return expect_same(found, expected)


def sharded(setting: Setting) -> str:
    """FSDP2 over all devices, with the backend of the device; each rank proves the folder."""
    folder, expected = setting.place("found"), setting.place("expected")
    save_model(llama(setting.small, "cpu"), expected)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]
    start(_rank, (setting, folder, port), nprocs=setting.ranks)
    return f"{setting.ranks} ranks, {setting.backend}: {expect_same(folder, expected)}; proven"


def _rank(rank: int, setting: Setting, folder: Path, port: int) -> None:
    """What one rank of ``sharded`` does."""
    from torch.distributed.fsdp import fully_shard

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(setting.ranks), "LOCAL_RANK": str(rank)}
    if setting.device != "cpu":
        torch.accelerator.set_device_index(rank)
    torch.distributed.init_process_group(
        setting.backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=setting.ranks
    )
    try:
        model = llama(setting.small, setting.device)
        mesh = torch.distributed.device_mesh.init_device_mesh(setting.device, (setting.ranks,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        save_model(model, folder)
        prove(model, folder, strict=True)
    finally:
        torch.distributed.destroy_process_group()


def proven(setting: Setting) -> str:
    """A proof of a folder on the device, and of one element that differs."""
    model, folder = llama(setting.small, setting.device), setting.place("found")
    save_model(model, folder)
    if not prove(model, folder).ok:
        raise BrokenError("expected the proof of a folder that was just saved, found none")
    with torch.no_grad():
        last = list(model.parameters())[-1]
        last.view(-1)[-1].add_(1)
    if prove(model, folder).ok:
        raise BrokenError("expected no proof of a model that is another one, found a proof")
    return "the same model is proven; with one other element it is not"


def allocator(setting: Setting) -> str:
    """The memory of the device before, while and after a save."""
    if setting.device != "cuda":
        raise NotRunError("torch counts the memory of CUDA devices alone")
    model, folder = llama(setting.small, setting.device), setting.place("found")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    save_model(model, folder)
    torch.cuda.synchronize()
    after, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated() - before
    if after != before or peak > PEAK:
        raise BrokenError(
            f"expected {before:,} bytes afterwards and at most {PEAK:,} more meanwhile, found "
            f"{after:,} and {peak:,}"
        )
    return f"{before:,} bytes before and after; at most {peak:,} more meanwhile"


CHECKS: tuple[Callable[[Setting], str], ...] = (
    *(bfloat16, cast, float8, strided, adapters, compiled, trained, sharded, proven, allocator),
)


def run_check(check: Callable[[Setting], str], setting: Setting, until: float) -> Outcome:
    """Run one check; whatever it raises is its outcome."""
    begun = time.monotonic()
    try:
        if begun > until:
            raise NotRunError("the time was over")
        status, detail = "holds", check(setting)
    except NotRunError as reason:
        status, detail = "not run", str(reason)
    except BrokenError as found:
        status, detail = "broken", str(found)
    except Exception as error:
        status, detail = "broken", "".join(traceback.format_exception(error))[-2000:]
    free(setting)
    return Outcome(check.__name__, status, detail, time.monotonic() - begun)


def free(setting: Setting) -> None:
    """Give back what a check took."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    for name in ("found", "expected"):
        shutil.rmtree(setting.folder / name, ignore_errors=True)


def measure(setting: Setting, until: float) -> dict[str, Any]:
    """Time a save against the copy alone and the disk alone, by turns, until the bytes are there.

    Returns:
        The bytes, the seconds of each way and round, and why there are fewer rounds than planned.
    """
    room = shutil.disk_usage(setting.folder).free
    if room < 2.2 * setting.large:
        return {
            "bytes": 0,
            "left_out": f"expected {2.2 * setting.large:,.0f} bytes, found {room:,}",
        }
    model = llama(setting.large, setting.device)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    ways: dict[str, Callable[[], None]] = {
        "save": lambda: _timed_save(model, setting.place("found")),
        "copy": lambda: _copy(model, setting.device),
        "disk": lambda: _write(size, setting.place("disk")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    left_out, longest = "", 0.0
    for turn in range(-1, ROUNDS):  # the first is not counted
        begun = time.monotonic()
        if begun + longest > until:
            left_out = f"the time was over after {turn} rounds"
            break
        for name, way in ways.items():
            started = time.monotonic()
            way()
            if turn >= 0:
                seconds[name].append(time.monotonic() - started)
        longest = max(longest, time.monotonic() - begun)
    shutil.rmtree(setting.folder / "disk", ignore_errors=True)
    free(setting)
    return {"bytes": size, "seconds": seconds, "left_out": left_out}


def _timed_save(model: Any, folder: Path) -> None:
    save_model(model, folder)
    for path in folder.rglob("*"):
        _flush(path)


def _copy(model: nn.Module, device: str) -> None:
    """Carry every tensor to main memory, a piece at a time, through one pinned buffer."""
    buffer = torch.empty(PIECE, dtype=torch.uint8, pin_memory=device != "cpu")
    for tensor in model.state_dict().values():
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        for start in range(0, flat.numel(), PIECE):
            part = flat[start : start + PIECE]
            buffer[: part.numel()].copy_(part, non_blocking=True)
    if device != "cpu":
        torch.accelerator.synchronize()


def _write(size: int, folder: Path) -> None:
    """Write as many bytes to one file, from the same memory again and again, and flush it."""
    folder.mkdir(parents=True)
    piece = memoryview(os.urandom(PIECE))
    path = folder / "bytes"
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, PIECE):
            file.write(piece[: min(PIECE, size - start)])
    _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_page(results: dict[str, Any]) -> str:
    """The page of a run, from its JSON alone."""
    lines = [
        "<!-- Made by `python -m benchmarks.gpu`; edit the script. -->",
        "# A save from an accelerator\n",
        f"{results['date']}, {results['machine']}, {', '.join(results['versions'])}.\n",
        "| check | outcome | found | seconds |",
        "|---|---|---|--:|",
    ]
    for item in results["checks"]:
        # A traceback ends with what went wrong.
        found = item["detail"].strip().splitlines()[-1].replace("|", "\\|")
        lines.append(f"| {item['name']} | {item['status']} | {found} | {item['seconds']:.1f} |")
    return "\n".join([*lines, "", *_speed(results["speed"]), ""])


def _speed(speed: dict[str, Any]) -> Iterator[str]:
    yield "## Speed\n"
    if speed.get("seconds") and all(speed["seconds"].values()):
        middle = {name: median(values) for name, values in speed["seconds"].items()}
        limit = max(middle["copy"], middle["disk"])
        yield "| | seconds | GB/s |"
        yield "|---|--:|--:|"
        names = {"save": "`save_model`", "copy": "the copy alone", "disk": "the disk alone"}
        for name, title in names.items():
            rate = speed["bytes"] / GB / middle[name]
            yield f"| {title} | {middle[name]:.2f} | {rate:.2f} |"
        yield ""
        rounds, times = len(speed["seconds"]["save"]), middle["save"] / limit
        yield (
            f"{speed['bytes'] / GB:.2f} GB, medians of {rounds} rounds, until the bytes are on the "
            f"disk. The save takes {times:.2f} times as long as the slower of copy and disk."
        )
    if speed["left_out"]:
        yield f"\nNot as planned: {speed['left_out']}."


def run(setting: Setting, limit: float = LIMIT) -> dict[str, Any]:
    """Run everything; the result is what ``gpu.json`` holds."""
    until = time.monotonic() + limit
    checks = []
    for check in CHECKS:
        outcome = run_check(check, setting, until)
        print(f"{outcome.name}: {outcome.status}, {outcome.detail}", flush=True)
        checks.append(asdict(outcome))
    speed = measure(setting, until)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": _machine(setting.device),
        "versions": [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")],
        "checks": checks,
        "speed": speed,
    }


def _machine(device: str) -> str:
    where = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    if device == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {where}"
    return f"{device}, {where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script.

    Returns:
        0 when every check that was run holds, 1 when one is broken.
    """
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = there.type if there else "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default=found, help="by default the accelerator, or the CPU")
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    parser.add_argument("--small", type=int, default=SMALL, metavar="BYTES", help="of most models")
    parser.add_argument(
        "--large",
        type=int,
        default=8 * GB if found != "cpu" else SMALL,
        metavar="BYTES",
        help="of the model whose save is timed",
    )
    parser.add_argument("--seconds", type=float, default=LIMIT, help="for all of it")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--page", action="store_true", help="make the page from the JSON alone")
    asked = parser.parse_args(arguments)
    path = asked.output / "gpu.json"
    if not asked.page:
        asked.output.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(parents=True, exist_ok=True)
            ranks = torch.accelerator.device_count() if asked.device != "cpu" else 2
            setting = Setting(asked.device, folder, asked.small, asked.large, ranks)
            path.write_text(json.dumps(run(setting, asked.seconds), indent=1) + "\n")
    results = json.loads(path.read_text())
    (asked.output / "gpu.md").write_text(make_page(results))
    return 1 if any(item["status"] == "broken" for item in results["checks"]) else 0


if __name__ == "__main__":
    sys.exit(main())
