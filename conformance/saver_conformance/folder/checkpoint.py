"""Checkpoints in a trainer's folder, and whether the model in one is whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from saver_conformance.folder.layout import UnreadableJsonError, read_json_object
from saver_conformance.folder.safetensors import SafetensorsError, read_header, read_tensor
from saver_conformance.observation.observation import Tensor
from saver_conformance.observation.tensor_diff import compare

_NAME = re.compile(r"checkpoint-([0-9]+)")
_CONFIGS = ("config.json", "adapter_config.json")


def step_of(name: str) -> int | None:
    """The step of the checkpoint in the folder of this name; None for a folder of another kind."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def checkpoints_in(run: Path) -> dict[int, Path]:
    """The checkpoints in a trainer's folder by their steps, the oldest first."""
    found = {
        step: path
        for path in run.iterdir()
        if (step := step_of(path.name)) is not None and path.is_dir()
    }
    return dict(sorted(found.items()))


def has_readable_weights(folder: Path) -> bool:
    """Whether there are weights in the one format whose bits are read here."""
    return any(folder.glob("*.safetensors"))


def fault_of_model(folder: Path, right: Mapping[str, Tensor]) -> str:
    """What is wrong with the model in ``folder``; empty when it has the weights of ``right``.

    Tensors that do not belong there are no fault here: other clauses are about them.
    """
    if not folder.is_dir():
        return "no folder of the model"
    there: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            header = read_header(path)
            there |= {name: read_tensor(path, header, name) for name in header.tensors}
    except (SafetensorsError, OSError) as error:
        return str(error)
    for name, tensor in right.items():
        if difference := compare(name, tensor, there.get(name)):
            return f"{name}: expected {difference.expected}, found {difference.found}"
    try:
        configs = [folder / name for name in _CONFIGS if (folder / name).is_file()]
        for config in configs:
            read_json_object(config)
    except UnreadableJsonError as error:
        return str(error)
    return "" if configs else "no configuration of the model"
