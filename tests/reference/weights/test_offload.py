"""Offloaded parameters are read from the hooks that have them; without data, nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import load_file, save_file
from tests.helpers import models
from transformers import LlamaForCausalLM

from canonical_saver import plan, save_model
from canonical_saver.errors import SaveError, WeightsError
from canonical_saver.weights.engines import offload
from canonical_saver.weights.tensors import elements

HALF = {
    "model.embed_tokens": "disk",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
MAPS: dict[str, Any] = {
    "head": {"model": "cpu", "lm_head": "disk"},
    "half": HALF,
    "all": {"": "disk"},
}


def _dispatched(base: Path, where: str) -> Any:
    folder = str(base.parent / "offload")
    return LlamaForCausalLM.from_pretrained(base, device_map=MAPS[where], offload_folder=folder)


def _same(found: Path, expected: Path) -> None:
    assert load_file(found / "model.safetensors").keys()
    assert (found / "model.safetensors").read_bytes() == (
        expected / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("where", MAPS)
def test_device_map_with_disk_is_saved_whole(where: str, tied: bool, tmp_path: Path) -> None:
    models.llama(tied=tied).save_pretrained(tmp_path / "base")
    trained = _dispatched(tmp_path / "base", where)
    assert any(parameter.is_meta for parameter in trained.parameters()) or tied
    if not any(hasattr(module, "_hf_hook") for module in trained.modules()):
        # As transformers 5.5 leaves a model that is all on the disk: nothing knows its weights.
        with pytest.raises(WeightsError, match="no hook of accelerate"):
            save_model(trained, tmp_path / "m", verify="full")
        return
    save_model(trained, tmp_path / "m", verify="full")
    _same(tmp_path / "m", tmp_path / "base")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("to", ["memory", "disk", "blocks", "buffers"])
def test_offloaded_by_accelerate_is_saved_whole(to: str, tied: bool, tmp_path: Path) -> None:
    trained: Any = models.llama(tied=tied)
    trained.register_buffer("seen", torch.arange(5))
    trained.save_pretrained(tmp_path / "base")
    if to == "memory":
        cpu_offload(trained)
    else:
        options: dict[str, Any] = {"offload_buffers": to == "buffers"}
        if to == "blocks":
            options["preload_module_classes"] = ["LlamaDecoderLayer"]
        disk_offload(trained, str(tmp_path / "offload"), **options)
    assert trained.seen.is_meta == (to == "buffers")
    with torch.no_grad():
        trained(torch.arange(9)[None])
    save_model(trained, tmp_path / "m", verify="full")
    _same(tmp_path / "m", tmp_path / "base")


def test_offloaded_and_cast(tmp_path: Path) -> None:
    trained: Any = models.llama()
    save_model(trained, tmp_path / "expected", dtype="bfloat16")
    disk_offload(trained, str(tmp_path / "offload"))
    save_model(trained, tmp_path / "m", dtype="bfloat16")
    _same(tmp_path / "m", tmp_path / "expected")


def test_offloaded_tensors_are_in_memory_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: Any = models.llama()
    disk_offload(trained, str(tmp_path / "offload"))
    model_tensors = [
        offload.model_tensor(stored) for stored in offload.find(trained.modules()).values()
    ]
    held = {id(run.load.__self__.last) for s in model_tensors for run in s.slices if run.load}
    assert len(held) == 1
    run = model_tensors[0].slices[0]
    piece = elements(run, 0, 4)
    assert piece.untyped_storage().nbytes() == piece.numel()
    loads: list[str] = []
    loader = type(trained.lm_head._hf_hook.weights_map.dataset)
    plain = loader.__getitem__
    monkeypatch.setattr(loader, "__getitem__", lambda *a: (loads.append(a[1]), plain(*a))[1])
    save_model(trained, tmp_path / "m", verify="layout")
    assert len(loads) == len(set(loads)) == len(model_tensors)


def test_tied_in_name_but_not_in_bytes_is_saved_twice(tmp_path: Path) -> None:
    trained: Any = models.llama(tied=True)
    trained.lm_head.weight = torch.nn.Parameter(trained.lm_head.weight + 1)
    disk_offload(trained, str(tmp_path / "offload"))
    save_model(trained, tmp_path / "m")
    found = load_file(tmp_path / "m" / "model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"] + 1)


def test_meta_without_a_hook_is_refused_by_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        trained = models.llama()
    with pytest.raises(WeightsError, match=r"'model\.embed_tokens\.weight'.*meta device"):
        save_model(trained, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert plan(trained)[0].size > 0


def test_buffer_on_meta_without_a_hook_is_refused_by_name(tmp_path: Path) -> None:
    trained = models.llama()
    trained.register_buffer("seen", torch.empty(3, device="meta"))
    with pytest.raises(WeightsError, match="'seen'"):
        save_model(trained, tmp_path / "m")


def test_offload_folder_that_is_gone_leaves_the_old_model(tmp_path: Path) -> None:
    trained: Any = models.llama()
    save_model(trained, tmp_path / "m")
    before = models.contents(tmp_path / "m")
    disk_offload(trained, str(tmp_path / "offload"))
    for path in (tmp_path / "offload").glob("*.dat"):
        path.unlink()
    with pytest.raises(WeightsError, match=r"embed_tokens\.weight'.*no such file"):
        save_model(trained, tmp_path / "m")
    assert models.contents(tmp_path / "m") == before


def test_offloaded_data_of_another_size_is_refused(tmp_path: Path) -> None:
    models.llama().save_pretrained(tmp_path / "base")
    trained = _dispatched(tmp_path / "base", "head")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:9]
    save_file(tensors, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(SaveError, match=r"'lm_head\.weight': expected 2144 elements"):
        save_model(trained, tmp_path / "m")
