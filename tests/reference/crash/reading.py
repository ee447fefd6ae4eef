"""What a user's libraries make of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tests.helpers import models
from transformers import AutoModelForCausalLM, AutoTokenizer

from canonical_saver.publishing.staging import STAGING

Snapshot = dict[str, tuple[int, bytes]]
"""Mode and bytes of each file and folder, by its relative path."""
Loaded = dict[str, str]
"""Digest of the model, the adapter and the tokenizer, of those that load."""


def snapshot(folder: Path) -> Snapshot:
    """Read everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


class Reader:
    """Loads folders with transformers and PEFT, each distinct content once."""

    def __init__(self) -> None:
        self._known: dict[str, Loaded] = {}

    @property
    def distinct(self) -> int:
        """How many different contents were loaded."""
        return len(self._known)

    def load(self, folder: Path) -> Loaded:
        """Find out what loads from a folder; what a loader refuses is left out."""
        found = {k: v for k, v in snapshot(folder).items() if not k.startswith(STAGING)}
        key = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = _load(folder)
        return self._known[key]


def digest(state: dict[str, torch.Tensor]) -> str:
    """Digest names, dtypes, shapes and bits of a state dict."""
    sum_ = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sum_.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sum_.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sum_.hexdigest()


def _load(folder: Path) -> Loaded:
    loaders: dict[str, Callable[[], str]] = {
        "model": lambda: digest(AutoModelForCausalLM.from_pretrained(folder).state_dict()),
        "adapter": lambda: digest(
            PeftModel.from_pretrained(models.llama(), str(folder)).state_dict()
        ),
        "second adapter": lambda: digest(
            PeftModel.from_pretrained(models.llama(), str(folder / "second")).state_dict()
        ),
        "tokenizer": lambda: _tokenizer(AutoTokenizer.from_pretrained(folder)),
    }
    found = {}
    for name, load in loaders.items():
        try:
            found[name] = load()
        except Exception:  # a refusal, in whatever words
            continue
    return found


def _tokenizer(tokenizer: Any) -> str:
    said = [tokenizer("a b zzz")["input_ids"], tokenizer.chat_template]
    return f"{said} {tokenizer.special_tokens_map}"
