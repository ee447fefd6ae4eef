"""The first difference is named: the tensor or option, the ranks, and both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models, worlds

from canonical_saver import RequestError, SaveError, save_model, save_trained_model
from canonical_saver.writing.agreement import check_options
from canonical_saver.writing.layout_differences import difference


def test_check_options_that_differ_names_the_first() -> None:
    options = {"format": "torch", "max_shard_size": 5}
    check_options([options, dict(options)])
    with pytest.raises(RequestError, match=r"max_shard_size: .* 5 on rank 0 and 7 on rank 2"):
        check_options([options, options, options | {"max_shard_size": 7}])


def tensors(*names: str, shape: tuple[int, ...] = (3, 4)) -> dict[str, Any]:
    return dict.fromkeys(names, ("torch.float32", shape))


def test_difference_of_equal_models_is_none() -> None:
    assert difference(tensors("a", "b"), tensors("b", "a"), 1) == ""


def test_difference_of_stages_names_pipeline_parallelism() -> None:
    first = tensors("embed.weight", "layers.0.weight", "layers.1.weight")
    last = tensors("layers.2.weight", "layers.3.weight", "head.weight")
    text = difference(first, last, 3)
    assert "pipeline parallelism is not supported" in text
    assert "rank 3" in text
    assert "'embed.weight'" in text
    assert "'layers.2.weight'" in text


def test_difference_of_models_is_no_pipeline() -> None:
    text = difference(tensors("layers.0.mlp"), tensors("layers.0.experts"), 1)
    assert "'layers.0.mlp'" in text
    assert "pipeline" not in text
    assert "rank 1 and not on rank 0" in difference(tensors("a"), tensors("a", "b"), 1)


def test_difference_of_shapes_names_both() -> None:
    text = difference(tensors("a", shape=(19, 4)), tensors("a", shape=(18, 4)), 1)
    assert "'a'" in text
    assert "(19, 4) on rank 0" in text
    assert "(18, 4) on rank 1" in text
    assert "tensor parallelism" in text


def error_of(*arguments: Any, **options: Any) -> str:
    try:
        save_model(*arguments, **options)
    except SaveError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def save_what_differs(rank: int, folder: str) -> list[str]:
    """Let the ranks differ in one thing after the other; returns each error's text."""
    model = models.llama()
    errors = [
        error_of(model, f"{folder}/m", format="torch" if rank else "safetensors"),
        error_of(model, f"{folder}/m", max_shard_size=f"{rank + 5}KB"),
        error_of(model, f"{folder}/m", dtype=torch.bfloat16 if rank else None),
        error_of(model, f"{folder}/m", verify="full" if rank else "layout"),
    ]
    try:
        save_trained_model({"output_dir": f"{folder}/m", "save_checksums": bool(rank)}, None, model)
    except SaveError as error:
        errors.append(f"{type(error).__name__}: {error}")
    stage: Any = models.llama()
    stage.model.layers = torch.nn.ModuleDict({str(rank): stage.model.layers[rank]})
    if rank:
        stage.model.embed_tokens = None
    else:
        stage.lm_head = None
    errors += [
        error_of(stage, f"{folder}/m", format=name) for name in ("safetensors", "torch", "dcp")
    ]
    cut: Any = models.llama()
    up = cut.model.layers[1].mlp.up_proj
    up.weight = torch.nn.Parameter(up.weight[: 19 - rank])
    errors.append(error_of(cut, f"{folder}/m"))
    return errors


def test_save_of_ranks_that_differ_names_the_first_difference(tmp_path: Path) -> None:
    first, second = worlds.run(2, save_what_differs, str(tmp_path))
    assert first == second
    options, stages, shape = first[:5], first[5:8], first[8]
    names = ("format", "max_shard_size", "dtype", "verify", "checksums")
    for name, text in zip(names, options, strict=True):
        assert text.startswith(f"RequestError: {name}: "), text
        assert "on rank 1" in text
    for text in stages:
        assert "pipeline parallelism is not supported" in text, text
    assert "'model.layers.1.mlp.up_proj.weight'" in shape
    assert "(19, 32) on rank 0" in shape
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("mine", "theirs"), [("style", "other"), ("", "style"), ("org/a", "a")])
def test_difference_of_adapters_names_them_and_no_pipeline(mine: str, theirs: str) -> None:
    def adapter(folder: str, *layers: int) -> dict[str, Any]:
        place = f"{folder}/" if folder else ""
        return tensors(*(f"{place}model.layers.{n}.q_proj.lora_A.weight" for n in layers))

    text = difference(adapter(mine, 0, 1), adapter(theirs, 0, 1), 2)
    assert f"found '{mine or 'default'}' on rank 0 and '{theirs}' on rank 2" in text
    assert "pipeline" not in text
    one, two = (adapter(mine, 0) | adapter("more", 0), adapter(mine, 0))
    assert "'more' on rank 0 and" in difference(one, two, 1)
    assert "pipeline parallelism" in difference(adapter(mine, 0), adapter(mine, 1), 1)
