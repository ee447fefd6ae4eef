"""A save needs little memory beside the model, whatever the model's size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import worlds
from tests.reference.crash.enumeration import join
from tests.reference.crash.syscalls import Watch, run
from torch import nn

from canonical_saver import save_model

MIB = 2**20
BOUND = 64 * MIB
"""Bytes that a save may need beside the model, on each rank."""


class Blocks(nn.Module):
    """Linear layers of 16 MiB each.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2048, 2048, bias=False) for _ in range(count))


def memory(key: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM, the most since the last reset."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def made(engine: str, count: int) -> Any:
    """Make a model of ``count`` times 16 MiB of which this rank never held more than its part."""
    if engine == "single":
        return Blocks(count)
    if engine == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        with torch.device("meta"):
            model = Blocks(count)
        for layer in model.layers:
            fully_shard(layer)
        fully_shard(model)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.to_local().fill_(1.5)
        return model
    import deepspeed

    zero: dict[str, Any] = {"stage": 3, "stage3_param_persistence_threshold": 0}
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}
    with deepspeed.zero.Init(config_dict_or_path=config):
        model = Blocks(count)
    return deepspeed.initialize(model=model, config=config)[0]


def save_and_measure(rank: int, engine: str, count: int, room: Path, options: Any) -> int:
    """Save in one rank; returns the bytes that it needed more at most than before."""
    # What is loaded only when it is first used is not the save's.
    save_model(made(engine, 1), room / "small", **options)
    model = made(engine, count)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    save_model(model, room / "large", **options)
    return memory("VmHWM") - before


def peaks(engine: str, count: int, room: Path, **options: Any) -> list[int]:
    """Save on two ranks, or one; returns what each needed more at most than before."""
    ranks = 1 if engine == "single" else 2

    def body(rank: int) -> Callable[[Watch], Any]:
        def save(_: Watch) -> None:
            if ranks > 1:
                join(rank, ranks, room / "store", 300)
            peak = save_and_measure(rank, engine, count, room, options)
            (room / f"peak-{rank}").write_text(str(peak))

        return save

    if engine == "zero3":  # DeepSpeed compiles an operator, which a forked process cannot
        found = worlds.run(ranks, save_and_measure, engine, count, room, options)
    else:
        (room / "store").unlink(missing_ok=True)
        ended = run([body(rank) for rank in range(ranks)], room, room, limit=500)
        assert {one.status for one in ended} == {"returned"}, ended
        found = [int((room / f"peak-{rank}").read_text()) for rank in range(ranks)]
    written = sum(path.stat().st_size for path in (room / "large").iterdir())
    assert written > count * 16 * MIB // (2 if "dtype" in options else 1)
    shutil.rmtree(room / "large")
    return found


@pytest.mark.parametrize(
    ("engine", "verify"), [("single", "full"), ("fsdp2", "layout"), ("fsdp2", "full")]
)
def test_a_model_of_192_mib(
    engine: str, verify: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = peaks(engine, 12, tmp_path, verify=verify)
    with capsys.disabled():
        print(f"\n{engine}, 192 MiB, verify={verify}: {[n / MIB for n in found]} MiB more at most")
    assert max(found) <= BOUND


@pytest.mark.crash
@pytest.mark.parametrize("options", [{}, {"verify": "full"}, {"dtype": "bfloat16"}], ids=str)
@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_a_sharded_model_of_a_gigabyte(
    engine: str, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = peaks(engine, 64, tmp_path, **options)
    with capsys.disabled():
        print(f"\n{engine}, 1 GiB, {options}: {[n / MIB for n in found]} MiB more at most")
    assert max(found) <= BOUND


def test_a_turned_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tensor that does not lie in the order of its elements is read in pieces, too."""

    def save(_: Watch) -> None:
        class Turned(nn.Module):
            def __init__(self, rows: int) -> None:
                super().__init__()
                made = torch.full((2048, rows), 1.5, dtype=torch.bfloat16)
                self.register_buffer("turned", made.t())

        save_model(Turned(1024), tmp_path / "small")
        model = Turned(16 * 1024)
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        save_model(model, tmp_path / "large")
        (tmp_path / "peak").write_text(str(memory("VmHWM") - before))

    (ended,) = run([save], tmp_path, tmp_path)
    assert ended.status == "returned", ended
    found = int((tmp_path / "peak").read_text())
    with capsys.disabled():
        print(f"\na turned tensor of 64 MiB: {found / MIB} MiB more at most")
    assert found <= BOUND
