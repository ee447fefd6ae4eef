"""Formats, dtypes, checksums, and the pure parts."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers import models
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from canonical_saver import Progress, RequestError, plan, save_model, save_trained_model
from canonical_saver.formats import shards as sharding
from canonical_saver.from_trainer import from_training
from canonical_saver.options import parse_size
from canonical_saver.request import DEFAULT_SHARD_SIZE
from canonical_saver.weights.saved_tensors import direct
from canonical_saver.weights.tensors import whole

ODD = {
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "bits": torch.tensor([True, False, True]),
    "numbers": torch.arange(5, dtype=torch.int64),
    "short": torch.randn(3, 3, dtype=torch.float64).half(),
    "brain": torch.randn(7).bfloat16(),
    "eight": torch.randn(5).to(torch.float8_e4m3fn),
    "turned": torch.randn(4, 6).t(),
    "ünï": torch.randn(2),
    "complex": torch.randn(3, dtype=torch.complex64),
}


class Odd(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, tensor in ODD.items():
            self.register_buffer(name, tensor)
        self.register_buffer("passing", torch.ones(3), persistent=False)


def test_odd_tensors_as_save_file_writes_them(tmp_path: Path) -> None:
    save_model(Odd(), tmp_path / "m", verify="full")
    expected = {name: tensor.contiguous() for name, tensor in ODD.items()}
    save_file(expected, tmp_path / "expected", metadata={"format": "pt"})
    found = (tmp_path / "m" / "model.safetensors").read_bytes()
    assert found == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("size", [1, 4, 11, 12, 100])
def test_shards_keep_the_limit(size: int) -> None:
    saved_tensors = [direct(f"t{n}", whole(torch.zeros(n, dtype=torch.uint8))) for n in range(13)]
    shards = sharding.split(saved_tensors, size, None)
    assert all(shards)
    assert sorted(e.name for s in shards for e in s) == sorted(e.name for e in saved_tensors)
    assert all(len(s) == 1 or sum(e.shape[0] for e in s) <= size for s in shards)


def test_torch_format(tmp_path: Path) -> None:
    model = models.llama()
    cfg = {"output_dir": str(tmp_path), "save_safetensors": False, "max_shard_size": "30KB"}
    save_trained_model(cfg, None, model)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())
    state = model.state_dict()
    assert index["weight_map"].keys() == state.keys()
    for name in set(index["weight_map"].values()):
        for key, tensor in torch.load(tmp_path / name, weights_only=True).items():
            assert torch.equal(tensor, state[key])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_cast_when_asked(tmp_path: Path) -> None:
    model = models.llama()
    save_model(model, tmp_path, dtype="bfloat16", verify="full")
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(t, model.state_dict()[k].bfloat16()) for k, t in found.items())
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert model.dtype == torch.float32


def test_checksums(tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path, checksums=True)
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    found = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    files = models.contents(tmp_path)
    del files["SHA256SUMS"]
    # The hub's ids of large files are the digests of their bytes.
    assert found == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    save_model(models.llama(), tmp_path)
    assert not (tmp_path / "SHA256SUMS").exists(), "it would be that of the earlier save"


def test_plan_is_what_is_written(tmp_path: Path) -> None:
    model = models.llama()
    planned = plan(model, max_shard_size="30KB")
    report = save_model(model, tmp_path, max_shard_size="30KB")
    assert {p.name: p.size for p in planned}.items() <= {
        p.name: p.stat().st_size for p in tmp_path.iterdir()
    }.items()
    assert report.bytes == sum(p.size for p in planned)
    assert set(report.files) == set(models.contents(tmp_path))


def test_saving_is_invisible(tmp_path: Path) -> None:
    model = models.llama().train()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)

    def state() -> Any:
        weights = {
            k: hashlib.sha256(v.numpy().tobytes()).hexdigest()
            for k, v in model.state_dict().items()
        }
        flags = [(n, p.requires_grad, p.grad) for n, p in model.named_parameters()]
        generators = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        return (
            weights,
            flags,
            generators,
            model.training,
            model.config.to_dict(),
            torch.is_grad_enabled(),
        )

    before = state()
    save_model(model, tmp_path)
    assert state() == before


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({}, "output_dir"),
        ({"output_dir": 3}, "output_dir"),
        ({"output_dir": "x", "save_format": "pickle"}, "safetensors, torch"),
        ({"output_dir": "x", "max_shard_size": "many"}, "max_shard_size"),
        ({"output_dir": "x", "max_shard_size": True}, "max_shard_size"),
        ({"output_dir": "x", "max_shard_size": 0}, "max_shard_size"),
        ({"output_dir": "x", "save_dtype": "int8"}, "save_dtype"),
        ({"output_dir": "x", "save_verify": "hope"}, "layout, full"),
        ({"output_dir": "x", "save_checksums": "yes"}, "checksums"),
    ],
)
def test_bad_values(cfg: dict[str, Any], message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        save_trained_model(cfg, None, models.llama())
    assert not list(tmp_path.iterdir())


def test_request_of_mappings_and_objects() -> None:
    model = models.llama()
    for cfg in ({"output_dir": "x"}, SimpleNamespace(output_dir="x")):
        request = from_training(cfg, None, model)
        assert (request.format, request.max_shard_size) == ("safetensors", DEFAULT_SHARD_SIZE)
    assert parse_size("1.5KB") == 1500
    assert parse_size("2 MiB") == 2 * 2**20
    assert parse_size("7") == 7


def test_tied_in_memory_only_is_saved_twice(tmp_path: Path) -> None:
    model = models.llama(tied=False)
    model.lm_head.weight = model.model.embed_tokens.weight
    save_model(model, tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.model.embed_tokens.weight)


def test_dcp(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    model = models.llama(seed=4)
    save_model(model, tmp_path, format="dcp")
    other = models.llama(seed=5)
    state = other.state_dict()
    dcp.load(state, checkpoint_id=tmp_path)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    models.llama().save_pretrained(tmp_path / "base")
    options: dict[str, Any] = {f"load_in_{bits}bit": True}
    if bits == 4:
        options |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    model = LlamaForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=BitsAndBytesConfig(**options)
    )
    model.save_pretrained(tmp_path / "golden")
    save_model(model, tmp_path / "m", verify="full", portable=False)
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "golden")


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    report = save_model(models.mixtral(), tmp_path, max_shard_size="30KB", progress=told.append)
    data = sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    last = told[-1]
    assert last.bytes == last.total_bytes < data == report.bytes
    assert last.files == last.total_files == len(list(tmp_path.glob("*.safetensors")))
    assert [one.bytes for one in told] == sorted(one.bytes for one in told)
    capsys.readouterr()
    for progress, shown in ((None, False), (False, False), (True, True)):
        save_model(models.llama(), tmp_path, progress=progress)
        assert ("1/1 files" in capsys.readouterr().err) == shown
    with pytest.raises(RequestError, match="progress: expected"):
        save_model(models.llama(), tmp_path, progress="much")  # type: ignore[arg-type]
