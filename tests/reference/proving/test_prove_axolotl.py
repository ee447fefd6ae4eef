"""`ProveCallback` by a plugin of axolotl; runs on axolotl's stack, in ``nox -s savers``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from tests.reference.proving.test_callback import trainer_of

from canonical_saver import ProofError, ProveCallback

WHY = "needs axolotl, as nox -s 'savers(axolotl)' installs it"
base = pytest.importorskip("axolotl.integrations.base", reason=WHY)


class ProvePlugin(base.BasePlugin):  # type: ignore[misc,name-defined]
    """As docs/guides/prove.md has it."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        return [ProveCallback(trainer, strict=True)]


@pytest.fixture
def settings() -> Iterator[Any]:
    """The settings of a training that names the plugin, which axolotl has loaded."""
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault({"plugins": [f"{__name__}.{ProvePlugin.__name__}"]})
    prepare_plugins(cfg)
    yield cfg
    base.PluginManager.get_instance().plugins.clear()


def add_callbacks(cfg: Any, trainer: Any) -> Any:
    """Add the callbacks that axolotl adds once it has made a trainer.

    As its ``TrainerBuilderBase.get_post_trainer_create_callbacks`` does, whose module cannot be
    imported without triton.
    """
    (callback,) = base.PluginManager.get_instance().add_callbacks_post_trainer(cfg, trainer)
    trainer.add_callback(callback)
    return callback


@pytest.mark.parametrize("make", [models.llama, models.peft])
def test_plugin_of_axolotl_proves_each_checkpoint(make: Any, settings: Any, tmp_path: Path) -> None:
    trainer = trainer_of(make(), tmp_path)
    callback = add_callbacks(settings, trainer)
    trainer.train()
    assert [folder.name for folder in callback.proofs] == ["checkpoint-2", "checkpoint-4"]
    assert all(proof.ok for proof in callback.proofs.values())


def test_plugin_of_axolotl_ends_a_training_whose_checkpoint_is_another_model(
    settings: Any, tmp_path: Path
) -> None:
    trainer = trainer_of(models.llama(), tmp_path)
    add_callbacks(settings, trainer)
    trainer._save = lambda folder, **_: models.llama(seed=1).save_pretrained(folder)
    with pytest.raises(ProofError, match=r"checkpoint-2 is not the model in memory"):
        trainer.train()
