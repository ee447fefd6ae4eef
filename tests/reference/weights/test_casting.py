"""What ``dtype`` casts and what it leaves, and what overflows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as checkpoint
from safetensors.torch import load_file
from tests.helpers import models, worlds
from tests.helpers.engines import wrap
from torch import nn

from canonical_saver import Report, plan, save_model
from canonical_saver.cli import main
from canonical_saver.errors import WeightsError

QUANTIZED = {"quant_method": "gptq", "bits": 4}


def _layer(model: Any, kind: str) -> nn.Module:
    """Put something quantized in the place of a layer."""
    attention = model.model.layers[0].self_attn
    layer = attention.q_proj
    if kind == "float8":
        layer.weight = nn.Parameter(layer.weight.detach().to(torch.float8_e4m3fn), False)
        layer.weight_scale_inv = nn.Parameter(torch.full((1, 1), 1.2345678), requires_grad=False)
    elif kind == "packed buffers":
        attention.q_proj = layer = nn.Module()
        layer.register_buffer("qweight", torch.ones(4, 32, dtype=torch.int32))
        layer.register_buffer("scales", torch.full((1, 32), 1.2345678))
        layer.register_buffer("bias", torch.full((32,), 1.2345678))
    elif kind == "blocks":
        attention.q_proj = layer = nn.Module()
        layer.register_buffer("weight_blocks", torch.ones(4, 2, 3, dtype=torch.uint8))
        layer.register_buffer("weight_bias", torch.full((32,), 1.2345678))
    else:
        attention.register_parameter("k_scale", nn.Parameter(torch.tensor(1.2345678), False))
        return _layer(model, "packed buffers")
    return layer


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["float8", "packed buffers", "blocks", "scale elsewhere"])
def test_dtype_leaves_quantized_modules(kind: str, tmp_path: Path) -> None:
    trained: Any = models.llama()
    _layer(trained, kind)
    trained.config.quantization_config = QUANTIZED
    save_model(trained, tmp_path / "own")
    save_model(trained, tmp_path / "cast", dtype="bfloat16")
    own, cast = _tensors(tmp_path / "own"), _tensors(tmp_path / "cast")
    for name, tensor in own.items():
        quantized = "layers.0.self_attn.q_proj" in name or "k_scale" in name
        assert cast[name].dtype == (tensor.dtype if quantized else torch.bfloat16), name
        if quantized:
            assert torch.equal(cast[name], tensor)
    config = json.loads((tmp_path / "cast" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    planned = plan(trained, dtype="bfloat16")
    assert planned[0].size == (tmp_path / "cast" / "model.safetensors").stat().st_size


def test_dtype_leaves_float8_of_a_model_that_does_not_say_it(tmp_path: Path) -> None:
    trained = models.llama()
    _layer(trained, "float8")
    save_model(trained, tmp_path, dtype="float16")
    found = _tensors(tmp_path)
    assert found["model.layers.0.self_attn.q_proj.weight"].dtype == torch.float8_e4m3fn
    assert found["model.layers.0.self_attn.q_proj.weight_scale_inv"].dtype == torch.float32
    assert found["model.norm.weight"].dtype == torch.float16


def test_dtype_of_a_quantized_model_that_does_not_show_how_is_refused(tmp_path: Path) -> None:
    trained: Any = models.llama()
    trained.config.quantization_config = {"quant_method": "unknown"}
    with pytest.raises(WeightsError, match=r"dtype.*quantized.*without dtype"):
        save_model(trained, tmp_path / "m", dtype="bfloat16")
    assert not (tmp_path / "m").exists()
    save_model(trained, tmp_path / "m")


def test_dtype_of_bitsandbytes_4_bit_is_refused(tmp_path: Path) -> None:
    """Its quantization state says the dtype of what surrounds it."""
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit, Params4bit
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    layered: Any = models.llama()
    layer = Linear4bit(32, 32, bias=False, quant_type="nf4", compress_statistics=True)
    layer.weight = Params4bit(torch.randn(32, 32), False, quant_type="nf4").to("cpu")
    layered.model.layers[0].self_attn.q_proj = layer
    parametrized: Any = models.mixtral()
    parametrized.extra = nn.Linear(64, 32)
    replace_parameter_4bit(parametrized.extra, "weight", quant_type="nf4")
    for number, trained in enumerate((layered, parametrized)):
        with pytest.raises(WeightsError, match=r"dtype.*bitsandbytes.*without dtype"):
            save_model(trained, tmp_path / str(number), dtype="bfloat16")
        assert not (tmp_path / str(number)).exists()
        save_model(trained, tmp_path / str(number))
        assert any("quant_state" in name for name in _tensors(tmp_path / str(number)))


def test_dtype_leaves_what_transformers_keeps_in_float32(tmp_path: Path) -> None:
    from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

    config = Glm4MoeConfig(
        **models.SIZES, n_routed_experts=4, n_group=1, topk_group=1, moe_intermediate_size=8
    )
    trained = Glm4MoeForCausalLM(config)
    trained.float()
    save_model(trained, tmp_path, dtype="bfloat16")
    found = _tensors(tmp_path)
    kept = {name for name, tensor in found.items() if tensor.dtype == torch.float32}
    # A version may keep more than another one.
    parts = Glm4MoeForCausalLM._keep_in_fp32_modules_strict or trained._keep_in_fp32_modules_strict
    assert kept == {name for name in found if any(part in name for part in parts)}
    assert any("e_score_correction_bias" in name for name in kept)


def _overflowing() -> Any:
    model: Any = models.llama()
    with torch.no_grad():
        model.lm_head.weight[3, :5] = 1e5
        model.lm_head.weight[4, 0] = -1e6
        model.lm_head.weight[5, :3] = torch.tensor([float("inf"), float("nan"), 65504.0])
        model.model.norm.weight[0] = 7e4
    return model


def _told(report: Report) -> bool:
    head, norm = report.warnings
    return "'lm_head.weight': 6 elements" in head and "'model.norm.weight': 1 " in norm


@pytest.mark.parametrize("format", ["safetensors", "torch", "dcp"])
def test_overflow_is_told_with_tensor_and_count(
    format: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "canonical_saver"):
        report = save_model(_overflowing(), tmp_path, dtype="float16", format=format)
    assert _told(report)
    assert [record.getMessage() for record in caplog.records] == list(report.warnings)
    if format == "dcp":
        metadata = checkpoint.FileSystemReader(tmp_path).read_metadata()
        assert metadata.state_dict_metadata["lm_head.weight"].properties.dtype == torch.float16


def test_no_overflow_is_told_where_there_is_none(tmp_path: Path) -> None:
    assert save_model(_overflowing(), tmp_path / "bf16", dtype="bfloat16").warnings == ()
    assert save_model(_overflowing(), tmp_path / "own").warnings == ()


def test_overflow_of_computed_tensors_is_told(tmp_path: Path) -> None:
    model: Any = models.mixtral()
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[0, 0, 0] = 1e5
    (warning,) = save_model(model, tmp_path, dtype="float16", max_shard_size="20KB").warnings
    assert "layers.0." in warning
    assert ": 1 elements" in warning


def _saved_by_ranks(rank: int, engine: str, folder: str) -> list[str]:
    del rank
    report = save_model(wrap(engine, _overflowing()), folder, dtype="float16")
    assert _told(report)
    return list(report.warnings)


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_overflow_is_told_alike_on_all_ranks(engine: str, tmp_path: Path) -> None:
    first, second = worlds.run(2, _saved_by_ranks, engine, str(tmp_path))
    assert first == second


def test_plan_of_a_folder_obeys_its_dtype(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = save_model(models.llama().bfloat16(), tmp_path).bytes
    assert main(["plan", str(tmp_path)]) == 0
    assert f"{expected:,} bytes  in all" in capsys.readouterr().out
    assert main(["plan", str(tmp_path), "--dtype", "float32"]) == 0
    assert f"{expected:,} bytes  in all" not in capsys.readouterr().out


def test_plan_of_a_quantized_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = models.llama()
    model.config.quantization_config = QUANTIZED
    save_model(model, tmp_path)
    assert main(["plan", str(tmp_path)]) == 1
    assert "not quantized" in capsys.readouterr().err


def test_quantizer_that_makes_the_state_dict_itself_is_refused(tmp_path: Path) -> None:
    from transformers import Mxfp4Config
    from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer

    model: Any = models.llama()
    model.hf_quantizer = Mxfp4HfQuantizer(Mxfp4Config(), pre_quantized=True)
    with pytest.raises(WeightsError, match="Mxfp4HfQuantizer makes others"):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
