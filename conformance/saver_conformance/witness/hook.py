"""What the processes of a watched command import when they start: waits for transformers' trainer.

Only the standard library is imported here, since every process of the command does it, also those
that train nothing.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

FOLDER = "SAVER_CONFORMANCE_WITNESS"
"""The variable that has the folder for what is recorded; without it nothing is done."""
CPU = "SAVER_CONFORMANCE_WITNESS_CPU"
"""The variable that asks for engines to train without an accelerator."""
_TRAINER = "transformers.trainer"


def install() -> None:
    """Wrap the trainer when it is imported, if this process is watched."""
    if os.environ.get(FOLDER) and _TRAINER not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as others find it, and wraps it once it is loaded."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            spec.loader = _Loader(loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads the trainer by its own loader, then wraps its ``train``."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._own.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        if os.environ.get(CPU):
            from saver_conformance.witness import without_accelerator

            without_accelerator.enable()
        trainer: Any = module.__dict__["Trainer"]
        trainer.train = watched(trainer.train)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def watched(train: Callable[..., Any]) -> Callable[..., Any]:
    """``train`` with what it makes of the weights recorded when it returns."""

    @functools.wraps(train)
    def train_and_record(self: Any, *args: Any, **kwargs: Any) -> Any:
        from saver_conformance.witness.recorder import Recording

        recording = Recording.begin(self, os.environ[FOLDER])
        trained = train(self, *args, **kwargs)
        recording.end(self)
        return trained

    return train_and_record
