"""A saver with one defect, for ``saver-conformance demo``: it leaves the model of an earlier save.

It copies new shards over the folder and does not remove the single file that was there before.
Loaders prefer the single file. The folder loads without a warning, and the model is the earlier
one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SHARD_BYTES = 20_000
"""Small enough that the tiny model of the demonstration needs several shards."""


def save(cfg: Any, trainer: Any, model: Any) -> None:
    """Save ``model`` into ``cfg.output_dir`` as shards, over what is there."""
    folder = Path(cfg.output_dir)
    with TemporaryDirectory() as new:
        model.save_pretrained(new, max_shard_size=SHARD_BYTES)
        trainer.processing_class.save_pretrained(new)
        # Earlier chat templates are removed. Earlier weights are not, which is the defect.
        shutil.rmtree(folder / "additional_chat_templates", ignore_errors=True)
        shutil.copytree(new, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
