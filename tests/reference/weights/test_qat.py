"""torchao: what its training adds is no part of the model, what it converts is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models, worlds
from torch import nn
from torch.distributed.fsdp import fully_shard

from canonical_saver import SaveError, save_trained_model

pytest.importorskip("torchao", reason="`nox -s tests` runs this file apart, with torchao")

GROUP = 8


def _prepared() -> Any:
    """A model as axolotl prepares it for ``qat``: fake quantized layers and embeddings."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    model = models.llama(tied=True)
    base = Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(GROUP))
    quantize_(model, QATConfig(base), lambda m, _: _fits(m, nn.Linear, "in_features"))
    weight = QATConfig(weight_config=IntxFakeQuantizeConfig(torch.int4, group_size=GROUP))
    quantize_(model, weight, lambda m, _: _fits(m, nn.Embedding, "embedding_dim"))
    return model


def _fits(module: nn.Module, kind: type[nn.Module], size: str) -> bool:
    return isinstance(module, kind) and getattr(module, size) % GROUP == 0


def _converted(model: Any) -> Any:
    """A copy as axolotl's ``convert_qat_model`` would leave it."""
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    model = copy.deepcopy(model)
    quantize_(model, QATConfig(step="convert"))
    quantize_(model, QATConfig(step="convert"), lambda m, _: isinstance(m, nn.Embedding))
    return model


def _train(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.arange(24).reshape(2, 12)
    for _ in range(2):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _asked(folder: Path) -> dict[str, Any]:
    qat: dict[str, Any] = {
        "weight_dtype": "int4",
        "activation_dtype": "int8",
        "quantize_embedding": True,
    }
    qat["group_size"] = GROUP
    return {"output_dir": folder, "qat": qat, "save_portable": False}


def _classes(model: nn.Module) -> list[str]:
    return [type(module).__name__ for module in model.modules()]


def test_saved_as_if_converted(tmp_path: Path) -> None:
    model = _prepared()
    before = _classes(model)
    assert {"FakeQuantizedLinear", "FakeQuantizedEmbedding"} <= set(before)
    _train(model)
    _converted(model).save_pretrained(tmp_path / "expected")
    save_trained_model(_asked(tmp_path / "m"), None, model)
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "expected")
    assert _classes(model) == before
    _train(model)


def _saved_from_fsdp2(rank: int, folder: str) -> None:
    del rank
    model = _prepared()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    save_trained_model(_asked(Path(folder)), None, model)


def test_saved_as_if_converted_from_ranks(tmp_path: Path) -> None:
    _converted(_prepared()).save_pretrained(tmp_path / "expected")
    worlds.run(2, _saved_from_fsdp2, str(tmp_path / "m"))
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "expected")


def _float8() -> Any:
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(enable_fsdp_float8_all_gather=True, emulate=True)
    return convert_to_float8_training(models.llama(), config=config)


def _saved_from_float8(rank: int, folder: str) -> None:
    del rank
    model = _float8()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    save_trained_model({"output_dir": folder}, None, model)


def test_float8_training_is_saved_in_its_own_precision(tmp_path: Path) -> None:
    models.llama().save_pretrained(tmp_path / "expected")
    model = _float8()
    assert "Float8Linear" in _classes(model)
    assert "Float8" in type(model.lm_head.weight).__name__
    save_trained_model({"output_dir": tmp_path / "one"}, None, model)
    worlds.run(2, _saved_from_float8, str(tmp_path / "two"))
    expected = models.contents(tmp_path / "expected")["model.safetensors"]
    for folder in ("one", "two"):
        assert models.contents(tmp_path / folder)["model.safetensors"] == expected


def _quantized() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = models.llama()
    quantize_(model, Int8WeightOnlyConfig())
    return model


def test_quantized_tensors_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"q_proj\.weight'.*torchao"):
        save_trained_model({"output_dir": tmp_path / "m"}, None, _quantized())
    assert not (tmp_path / "m").exists()
