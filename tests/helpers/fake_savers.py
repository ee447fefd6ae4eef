"""Savers that behave, and savers that ruin the rank that calls them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def save(cfg: Any, trainer: Any, model: Any) -> None:
    print("\x00{noise}\n" * 1000, flush=True)
    os.write(2, b'{"status": "died"}\n')
    if _rank() == 0:
        Path(cfg.output_dir, "model.safetensors").write_bytes(b"weights")


def does_nothing(cfg: Any, trainer: Any, model: Any) -> None:
    pass


def raises_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        raise RuntimeError("only here")


def raises_everywhere(cfg: Any, trainer: Any, model: Any) -> None:
    raise ValueError("agreed")


def rank_0_waits_for_rank_1_that_raises(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        raise RuntimeError("only here")
    time.sleep(600)


def sleeps_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        time.sleep(600)


def stuck_in_c_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock


def kills_itself_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def crashes_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        ctypes.string_at(0)


def exits_on_rank_1(cfg: Any, trainer: Any, model: Any) -> None:
    if _rank() == 1:
        os._exit(7)


def leaves_a_child(cfg: Any, trainer: Any, model: Any) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(cfg.output_dir, f"child-{_rank()}").write_text(str(child.pid))


def sums_over_the_group(cfg: Any, trainer: Any, model: Any) -> None:
    import torch
    import torch.distributed as dist

    total = torch.tensor([_rank() + 1])
    dist.all_reduce(total)
    assert total.item() == 3


_calls = 0


def _count_calls() -> int:
    """How many calls this process has seen, this one included."""
    global _calls
    _calls += 1
    return _calls


def raises_at_first_and_otherwise_later(cfg: Any, trainer: Any, model: Any) -> None:
    if _count_calls() == 1:
        raise ValueError("agreed")
    raise RuntimeError("only what an earlier raise left behind")


def raises_at_first_and_leaves_a_file_later(cfg: Any, trainer: Any, model: Any) -> None:
    if _count_calls() == 1:
        raise ValueError("agreed")
    if _rank() == 0:
        Path(cfg.output_dir, "model.safetensors.tmp").touch()


def raises_at_first_and_hangs_later(cfg: Any, trainer: Any, model: Any) -> None:
    if _count_calls() == 1:
        raise ValueError("agreed")
    time.sleep(600)


def raises_in_case_2(cfg: Any, trainer: Any, model: Any) -> None:
    if "case-2" in cfg.output_dir:
        raise ValueError("agreed")


def leaves_the_group(cfg: Any, trainer: Any, model: Any) -> None:
    import torch.distributed as dist

    dist.destroy_process_group()
    raise ValueError("agreed")


def collects_on_rank_1_and_raises(cfg: Any, trainer: Any, model: Any) -> None:
    import torch
    import torch.distributed as dist

    if _rank() == 1:
        dist.all_reduce(torch.tensor([1]), async_op=True)
    raise ValueError("agreed")


def sleeps_from_case_9_on(cfg: Any, trainer: Any, model: Any) -> None:
    if int(Path(cfg.output_dir).parent.name.removeprefix("case-")) >= 9:
        time.sleep(600)


def fills_the_disk(cfg: Any, trainer: Any, model: Any) -> None:
    raise OSError(28, "No space left on device", cfg.output_dir)
