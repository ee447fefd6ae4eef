"""What a watched command trained, as the judge reads it; without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.adapter_kinds import adapter_kinds
from saver_conformance.cases.families import families
from saver_conformance.folder.safetensors import read_header, read_tensor
from saver_conformance.observation.observation import Tensor
from saver_conformance.workload.hub_names import adapter_key, to_hub

TENSORS_FILE, PLAIN_FILE = "trained.safetensors", "trained.json"
ERROR_FILE = "error-{rank}.txt"
MOST_BYTES = 2 << 30
"""Of a model that is recorded; the whole of it is gathered on every rank."""


class NoRecordError(Exception):
    """Nobody knows what was trained; the message says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """The weights at the end of the last training of a command.

    Attributes:
        plain: what ``recorder.py`` wrote next to them.
        tensors: by their names in memory.
    """

    plain: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def adapter(self) -> Mapping[str, Any] | None:
        """The adapter that was trained: its name and configuration; None for a whole model."""
        found: Mapping[str, Any] | None = self.plain["adapter"]
        return found

    @property
    def expected(self) -> dict[str, Tensor]:
        """What belongs in the save, by its names on disk.

        Raises:
            NoRecordError: nobody knows what a kind of adapter calls its tensors on disk.
        """
        adapter = self.adapter
        if adapter is None:
            own = {name: tensor for name, tensor in self.tensors.items() if "_extra" not in name}
            known = [f for f in families().values() if f.model_type == self.plain["model_type"]]
            return to_hub(known[0], own) if known else own
        kind, name = _kind(adapter), adapter["name"]
        others = [other for other in adapter["all"] if other != name]
        return {
            adapter_key(memory, name, kind): tensor
            for memory, tensor in self.tensors.items()
            if memory in self.plain["trainable"]
            or (
                adapter_key(memory, name, kind) != memory
                and not any(adapter_key(memory, other, kind) != memory for other in others)
            )
        }

    @property
    def untrained(self) -> Mapping[str, str]:
        """Digests of tensors before the training, by name on disk, of those that it changed."""
        adapter = self.adapter
        before: Mapping[str, str] = self.plain["untrained"]
        changed = {
            name: digest
            for name, digest in before.items()
            if name in self.tensors
            and digest != hashlib.sha256(self.tensors[name].data).hexdigest()
        }
        if adapter is None:
            return changed
        return {adapter_key(n, adapter["name"], _kind(adapter)): d for n, d in changed.items()}


def _kind(adapter: Mapping[str, Any]) -> AdapterKind:
    wanted = adapter["config"].get("peft_type")
    for kind in adapter_kinds().values():
        if kind.peft_type == wanted:
            return kind
    raise NoRecordError(f"the suite does not know adapters of the type {wanted}")


def read_record(folder: Path) -> Record:
    """The record in ``folder``.

    Raises:
        NoRecordError: no training was recorded.
    """
    errors = sorted(folder.glob(ERROR_FILE.format(rank="*")))
    if errors:
        last = errors[0].read_text().strip().splitlines()[-1]
        raise NoRecordError(f"the weights could not be recorded: {last}")
    if not (folder / PLAIN_FILE).is_file():
        raise NoRecordError(
            "no training by transformers.Trainer has ended; the command has another trainer, ended "
            "before, or starts Python without PYTHONPATH"
        )
    path = folder / TENSORS_FILE
    header = read_header(path)
    tensors = {name: read_tensor(path, header, name) for name in header.tensors}
    return Record(json.loads((folder / PLAIN_FILE).read_text()), tensors)
