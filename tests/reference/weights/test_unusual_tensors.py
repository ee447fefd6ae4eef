"""Tensors whose elements do not lie in memory as a file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from canonical_saver import WeightsError, save_model


def test_save_model_with_conjugates_and_negatives_reloads_equal(tmp_path: Path) -> None:
    model = nn.Module()
    numbers = torch.randn(3, 4, dtype=torch.complex64)
    model.register_buffer("conjugate", numbers.conj())
    model.register_buffer("turned", numbers.conj().T)
    model.register_buffer("negative", numbers.conj().imag)
    wanted = {name: value.tolist() for name, value in model.state_dict().items()}
    save_model(model, tmp_path / "x", verify="full")
    saved = load_file(tmp_path / "x" / "model.safetensors")
    assert {name: value.tolist() for name, value in saved.items()} == wanted
    save_model(model, tmp_path / "y", format="torch", digest=True)
    loaded = torch.load(tmp_path / "y" / "pytorch_model.bin", weights_only=True)
    assert {name: value.tolist() for name, value in loaded.items()} == wanted


def sparse() -> torch.Tensor:
    return torch.eye(3).to_sparse()


def compressed() -> torch.Tensor:
    return torch.eye(3).to_sparse_csr()


@pytest.mark.parametrize("make", [sparse, compressed], ids=lambda make: make.__name__)
@pytest.mark.parametrize("format", ["safetensors", "torch", "dcp"])
def test_save_model_with_a_sparse_tensor_names_it(make: Any, format: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].register_buffer("mask", make())
    with pytest.raises(WeightsError, match=r"'0\.mask': expected a dense tensor, found a sparse"):
        save_model(model, tmp_path / "x", format=format)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [(nn.LazyLinear(4), "weight"), (nn.LazyBatchNorm1d(), "weight")],
    ids=["parameter", "buffer"],
)
def test_save_model_of_a_lazy_module_names_it(module: nn.Module, name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"'1\.{name}'.* lazy module"):
        save_model(nn.Sequential(nn.Linear(3, 3), module), tmp_path / "x")
    assert not (tmp_path / "x").exists()
