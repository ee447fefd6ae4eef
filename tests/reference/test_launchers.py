"""The commands of the documentation, run on two local ranks; what they train is saved whole."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^(?:torchrun|accelerate|deepspeed) .*$", re.MULTILINE)


def commands(page: str) -> set[str]:
    return set(COMMAND.findall((ROOT / page).read_text()))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def with_port(command: str, port: str) -> str:
    """Let launchers that begin at one fixed port have a free one, for tests run side by side."""
    option = {"accelerate": "--main_process_port", "deepspeed": "--master_port"}
    option_name = option.get(command.split()[0])
    if option_name is None or option_name in command:
        return command
    return command.replace(" examples/", f" {option_name} {port} examples/")


def end(started: list[subprocess.Popen[bytes]]) -> None:
    """End the launchers that still run; asked to, they end their ranks first."""
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    for process in started:
        try:
            process.wait(timeout=40)  # a launcher of torch gives its ranks 30 seconds
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def name(command: str) -> str:
    machines = "machines" if "$NODE_RANK" in command else "machine"
    return f"{Path(command.split(' $OUTPUT')[0].split()[-1]).stem}-{command.split()[0]}-{machines}"


def test_each_launcher_on_one_machine_and_on_several() -> None:
    page, readme = commands("docs/guides/launchers.md"), commands("README.md")
    for launcher in ("torchrun", "accelerate", "deepspeed"):
        on = {"$NODE_RANK" in command for command in page if command.startswith(launcher)}
        assert on == {False, True}, launcher
        assert any(command.startswith(launcher) for command in readme)
    assert readme <= page


@pytest.mark.parametrize("command", sorted(commands("docs/guides/launchers.md")), ids=name)
def test_command_saves(command: str, tmp_path: Path) -> None:
    if command.startswith("deepspeed"):
        pytest.importorskip("deepspeed", reason="the command is one of DeepSpeed's")
    hosts = tmp_path / "hosts"
    hosts.write_text("machine-a slots=1\nmachine-b slots=1\n")
    port = free_port()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OUTPUT": str(tmp_path / "m"),
        "HOSTFILE": str(hosts),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # Not for a processor to be chosen: the examples do that, as a reader's machine needs it.
    environment.pop("ACCELERATE_USE_CPU", None)
    machines = ("0", "1") if "$NODE_RANK" in command else ("0",)
    logs = [tmp_path / f"log{number}" for number in machines]
    started = [
        subprocess.Popen(
            with_port(command, port),
            shell=True,
            cwd=ROOT,
            env=environment | {"NODE_RANK": number},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for number, log in zip(machines, logs, strict=True)
    ]
    try:
        codes = [process.wait(timeout=900) for process in started]
    finally:
        end(started)
    printed = "".join(log.read_text() for log in logs)
    assert not any(codes), printed[-3000:]
    assert set(re.findall(r"bytes by (\d+) ranks: ", printed)) == {"2"}  # one line a machine
    if "examples/trainer.py" in command:
        for folder in ("", "checkpoint-1/canonical/model", "checkpoint-2/canonical/model"):
            names = load_file(tmp_path / "m" / folder / "adapter_model.safetensors")
            assert all("lora_" in name for name in names)
        return
    assert "config.json, generation_config.json, model.safetensors" in printed
    found = load_file(tmp_path / "m" / "model.safetensors")
    assert len(found) == 21
