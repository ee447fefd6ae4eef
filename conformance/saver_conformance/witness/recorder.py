"""The weights of a trainer when training is over, before anything is saved; on every rank.

Nothing here may end the command that is watched: what goes wrong is written down, and the judge
says that it knows nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.folder.safetensors import write as write_tensors
from saver_conformance.witness.record import ERROR_FILE, MOST_BYTES, PLAIN_FILE, TENSORS_FILE


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of a model when its training begins.

    Attributes:
        folder: where the record goes.
        names: of its tensors, before an engine wraps it; None where they could not be read.
        untrained: digests of the tensors by name, as far as this process has them.
    """

    folder: Path
    names: Any
    untrained: Mapping[str, str]

    @classmethod
    def begin(cls, trainer: Any, folder: str) -> Recording:
        """Read names and digests of ``trainer.model``, which no engine has wrapped yet."""
        place = Path(folder)
        try:
            from saver_conformance.workload import oracle

            names = oracle.read_names(trainer.model, None)
            size = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
            if size > MOST_BYTES:
                raise ValueError(
                    f"the model has {size} bytes, and at most {MOST_BYTES} are recorded; use a "
                    "tiny model"
                )
            return cls(place, names, _digests(trainer.model))
        except Exception:
            _complain(place)
            return cls(place, None, {})

    def end(self, trainer: Any) -> None:
        """Gather the weights, collectively, and have rank 0 write them down."""
        if self.names is None:
            return
        try:
            self._write(trainer)
        except Exception:
            _complain(self.folder)

    def _write(self, trainer: Any) -> None:
        from saver_conformance.workload import oracle
        from saver_conformance.workload.running_engine import running_engine, uncompiled

        engine = running_engine(trainer)
        if engine is None:
            raise ValueError("the suite does not know the engine that trained the model")
        root = uncompiled(trainer.model_wrapped)
        tensors = oracle.snapshot(engine.name, root, self.names, self.names.of_whole_model)
        if _rank() != 0:
            return
        model, args = trainer.model, trainer.args
        adapters = getattr(model, "peft_config", None) or {}
        config = getattr(model, "config", None)
        plain = {
            "engine": engine.name,
            "ranks": _ranks(),
            "steps": trainer.state.global_step,
            "output": str(Path(args.output_dir).absolute()),
            "trainer": f"{type(trainer).__module__}.{type(trainer).__qualname__}",
            "model_type": getattr(config, "model_type", "") or "",
            "base": getattr(config, "_name_or_path", "") or "",
            "trainable": sorted(self.names.trainable),
            "tied": dict(self.names.tied),
            "untrained": dict(self.untrained),
            "adapter": _adapter(model, adapters) if adapters else None,
            "config": _plain(config.to_dict()) if config is not None else {},
        }
        write_tensors(self.folder / TENSORS_FILE, tensors)
        (self.folder / PLAIN_FILE).write_text(json.dumps(plain))


def _adapter(model: Any, adapters: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter that is trained, with its configuration."""
    active = getattr(model, "active_adapters", None)
    names = list(active() if callable(active) else active or adapters)
    name = names[0] if names else next(iter(adapters))
    return {"name": name, "all": sorted(adapters), "config": _plain(adapters[name].to_dict())}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them; sets as lists, and what JSON does not know as text."""
    text = json.dumps(settings, default=lambda v: sorted(v) if isinstance(v, set) else str(v))
    plain: dict[str, Any] = json.loads(text)
    return plain


def _digests(model: Any) -> dict[str, str]:
    """Digests of the parameters that are whole and here; engines may hold them in parts already."""
    from saver_conformance.workload import oracle

    found = {}
    for name, parameter in model.named_parameters():
        is_part = hasattr(parameter, "ds_id") or hasattr(parameter, "full_tensor")
        if not (is_part or parameter.is_meta):
            found[name] = hashlib.sha256(oracle.bits(parameter).data).hexdigest()
    return found


def _complain(folder: Path) -> None:
    rank = _rank()
    (folder / ERROR_FILE.format(rank=rank)).write_text(traceback.format_exc())


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
