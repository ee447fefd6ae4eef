"""`ProveCallback` by a plugin of axolotl; needs axolotl's stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from tests.reference.proving.test_callback import trainer_of

from canonical_saver import ProveCallback

base = pytest.importorskip("axolotl.integrations.base")


class ProvePlugin(base.BasePlugin):  # type: ignore[misc,name-defined]
    """As docs/guides/prove.md has it."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        return [ProveCallback(trainer, strict=True)]


@pytest.mark.parametrize("make", [models.llama, models.peft])
def test_plugin_of_axolotl_proves_each_checkpoint(make: Any, tmp_path: Path) -> None:
    manager = base.PluginManager.get_instance()
    manager.register(f"{__name__}.{ProvePlugin.__name__}")
    trainer = trainer_of(make(), tmp_path)
    (callback,) = manager.add_callbacks_post_trainer(None, trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert [folder.name for folder in callback.proofs] == ["checkpoint-2", "checkpoint-4"]
    assert all(proof.ok for proof in callback.proofs.values())
    manager.plugins.clear()
