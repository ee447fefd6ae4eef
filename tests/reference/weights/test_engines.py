"""Every engine and world size gives the bytes that ``save_pretrained`` writes on one process.

The sizes are odd, so no world size divides them; the two experts leave the third of three ranks
without any part of some tensors.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers import models, worlds
from tests.helpers.engines import ENGINES, wrap

from canonical_saver import save_model, save_trained_model

MAKE = {
    "untied": lambda: models.llama(tied=False),
    "tied": lambda: models.llama(tied=True),
    "experts": models.mixtral,
    "lora": lambda: models.peft(modules_to_save=["lm_head"], use_dora=True, bias="all"),
}

# Without the original parameters, FSDP1 wants all of a module trained or none of it.
IMPOSSIBLE = {("fsdp1-flat", "lora")}

UMASK = os.umask(0o022)
os.umask(UMASK)


def save_through(rank: int, engines: tuple[str, ...], folder: str) -> None:
    for engine in engines:
        for name, make in MAKE.items():
            if (engine, name) in IMPOSSIBLE:
                continue
            model = make()
            wrapped = wrap(engine, model)
            size = "30KB" if name == "untied" else None
            output = f"{folder}/{engine}-{name}"
            cfg = {"output_dir": output, "max_shard_size": size, "save_verify": "full"}
            cfg["save_portable"] = False
            trainer = SimpleNamespace(model=wrapped, model_wrapped=wrapped)
            save_trained_model(cfg, trainer, model)
            if name == "untied":
                save_trained_model(cfg | {"output_dir": f"{output}-again"}, trainer, model)


def golden(folder: Path) -> dict[str, dict[str, bytes]]:
    found = {}
    for name, make in MAKE.items():
        path = folder / f"golden-{name}"
        model: Any = make()
        model.save_pretrained(path, max_shard_size="30KB" if name == "untied" else "50GB")
        found[name] = models.contents(path)
    return found


def adapter_config(text: bytes) -> dict[str, Any]:
    values = json.loads(text)
    base = values["base_model_name_or_path"] or None  # "" by old PEFT
    return values | {
        "target_modules": sorted(values["target_modules"]),
        "base_model_name_or_path": base,
    }


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of every weight file and index."""
    ends = (".safetensors", ".index.json")
    return {name: sha256(data).hexdigest() for name, data in files.items() if name.endswith(ends)}


def compare(folder: Path, engines: tuple[str, ...]) -> None:
    expected = golden(folder)
    assert len(digests(expected["untied"])) > 3
    for engine in engines:
        for name in MAKE:
            if (engine, name) not in IMPOSSIBLE:
                found = digests(models.contents(folder / f"{engine}-{name}"))
                assert found == digests(expected[name]), (engine, name)
        again = folder / f"{engine}-untied-again"
        assert models.contents(again) == models.contents(folder / f"{engine}-untied"), engine
        modes = {path.stat().st_mode & 0o777 for path in again.iterdir()}
        assert modes == {0o666 & ~UMASK}, engine
    differences = []
    for engine in engines:
        for name in MAKE:
            if (engine, name) in IMPOSSIBLE:
                continue
            found = models.contents(folder / f"{engine}-{name}")
            for file in sorted(expected[name].keys() | found.keys()):
                if file == "README.md":
                    continue
                if file == "adapter_config.json":  # PEFT writes sets in any order
                    same = adapter_config(expected[name][file]) == adapter_config(found[file])
                else:
                    same = expected[name].get(file) == found.get(file)
                if not same:
                    differences.append(f"{engine} {name} {file}")
    assert not differences


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_bytes_are_those_of_one_process(world_size: int, tmp_path: Path) -> None:
    engines = tuple(engine for engine in ENGINES if engine != "hsdp")
    worlds.run(world_size, save_through, engines, str(tmp_path))
    compare(tmp_path, engines)


def test_hybrid_sharding(tmp_path: Path) -> None:
    worlds.run(4, save_through, ("hsdp",), str(tmp_path))
    compare(tmp_path, ("hsdp",))


def test_without_ranks(tmp_path: Path) -> None:
    for name, make in MAKE.items():
        size = "30KB" if name == "untied" else None
        for folder in (f"single-{name}", f"single-{name}-again"):
            options = {"max_shard_size": size, "verify": "full", "portable": False}
            save_model(make(), tmp_path / folder, **options)
    compare(tmp_path, ("single",))
