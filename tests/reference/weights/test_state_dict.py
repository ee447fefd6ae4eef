"""Models whose modules have rules of their own for the state dict are saved by these rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tests.helpers import models, worlds
from tests.helpers.engines import wrap
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from transformers import LlamaConfig, LlamaForCausalLM

from canonical_saver import SaveError, plan, save_model, save_trained_model
from canonical_saver.errors import WeightsError


class ExtraState(nn.Linear):
    """A layer with a state that is neither a parameter nor a buffer."""

    state: Any = torch.arange(3.0)

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Added(nn.Linear):
    """A layer that adds a tensor in an override of what saves it."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}zero_point"] = torch.arange(3)


class Renamed(nn.Module):
    """A module that saves its layer under other names, and not all of what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.register_buffer("cache", torch.ones(2))
        self.register_state_dict_post_hook(
            lambda module, state, prefix, metadata: self._rename(state, prefix)
        )
        self.register_state_dict_pre_hook(self._count)
        self.saves = 0

    def _count(self, module: Any, prefix: str, keep_vars: bool) -> None:
        del prefix, keep_vars
        module.saves += 1

    def _rename(self, state: Any, prefix: str) -> None:
        assert self.saves  # the hook before it ran on the same module
        state[f"{prefix}outer.weight"] = state.pop(f"{prefix}inner.weight")
        del state[f"{prefix}cache"]


class Replaced(nn.Linear):
    """A layer with a hook of the older kind, which gives another dictionary."""

    def __init__(self) -> None:
        super().__init__(4, 6)
        self._register_state_dict_hook(self._replace)

    @staticmethod
    def _replace(module: Any, state: Any, prefix: str, metadata: Any) -> Any:
        del module, metadata
        return {k: v for k, v in state.items() if k != f"{prefix}none"} | {
            f"{prefix}version": torch.tensor(2)
        }


class Overridden(nn.Module):
    """A module that overrides ``state_dict`` itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)

    def state_dict(self, *args: Any, prefix: str = "", **kwargs: Any) -> Any:
        return self.inner.state_dict(*args, prefix=prefix, **kwargs)


class Computed(nn.Linear):
    """A layer that saves its weight in another form."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        del keep_vars
        destination[f"{prefix}columns"] = self.weight.detach().t().contiguous().half()
        destination[f"{prefix}bias"] = self.bias


def _on_the_instance() -> nn.Module:
    layer = nn.Linear(4, 6)

    def state_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = nn.Linear.state_dict(self, *args, **kwargs)
        found[f"{kwargs.get('prefix', '')}added"] = torch.ones(2)
        return found

    layer.state_dict = state_dict.__get__(layer)  # type: ignore[method-assign]
    return layer


def _normed(norm: Any) -> nn.Module:
    return norm(nn.Linear(4, 6))  # type: ignore[no-any-return]


class _Symmetric(nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value.triu() + value.triu(1).transpose(-1, -2)


def _parametrized() -> nn.Module:
    return parametrize.register_parametrization(nn.Linear(4, 4), "weight", _Symmetric())


KINDS: dict[str, Any] = {
    "extra-state": lambda: ExtraState(4, 6),
    "added": lambda: Added(4, 6),
    "renamed": Renamed,
    "replaced": Replaced,
    "overridden": Overridden,
    "instance": _on_the_instance,
    "weight-norm": lambda: _normed(parametrizations.weight_norm),
    "spectral-norm": lambda: _normed(parametrizations.spectral_norm),
    "parametrized": _parametrized,
    "older-weight-norm": lambda: _normed(nn.utils.weight_norm),
    "older-spectral-norm": lambda: _normed(nn.utils.spectral_norm),
}


class WithExtra(LlamaForCausalLM):  # type: ignore[misc]
    """A model with one module more."""

    def __init__(self, config: LlamaConfig, kind: str) -> None:
        super().__init__(config)
        self.extra = (KINDS | {"computed": lambda: Computed(4, 6)})[kind]()


def model(kind: str) -> Any:
    torch.manual_seed(0)
    return WithExtra(LlamaConfig(**models.SIZES), kind)


def _tensors(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", [*KINDS, "computed"])
def test_own_rules_as_save_pretrained(kind: str, tmp_path: Path) -> None:
    model(kind).save_pretrained(tmp_path / "expected")
    save_model(model(kind), tmp_path / "found")
    assert _tensors(tmp_path / "found") == _tensors(tmp_path / "expected")


def test_own_rules_leave_the_model_as_it_was(tmp_path: Path) -> None:
    trained = model("renamed")
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    hooks = dict(trained.extra._state_dict_hooks)
    report = save_model(trained, tmp_path)
    assert dict(trained.extra._state_dict_hooks) == hooks
    after = trained.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [w for w in report.warnings if "'extra.cache'" in w]


SHARDED = ("extra-state", "added", "renamed", "instance", "weight-norm")


def _save_sharded(rank: int, engine: str, folder: str) -> str:
    del rank
    for kind in SHARDED:
        save_model(wrap(engine, model(kind)), Path(folder) / kind)
    with pytest.raises(SaveError) as failure:
        save_model(wrap(engine, model("computed")), Path(folder) / "computed")
    return f"{failure.type.__name__}: {failure.value}"


@pytest.mark.parametrize("engine", ["fsdp1", "fsdp1-flat", "fsdp2", "zero3"])
def test_own_rules_from_shards_are_kept_or_refused_by_name(engine: str, tmp_path: Path) -> None:
    first, second = worlds.run(2, _save_sharded, engine, str(tmp_path))
    for kind in SHARDED:
        model(kind).save_pretrained(tmp_path / "expected")
        assert _tensors(tmp_path / kind) == _tensors(tmp_path / "expected"), kind
    assert first == second
    assert "WeightsError" in first
    assert "'extra.columns'" in first
    assert not (tmp_path / "computed").exists()


@pytest.mark.parametrize("state", [{"amax": 1.0}, b"bytes", 3, "text"])
def test_extra_state_that_is_no_tensor_is_refused_by_name(state: Any, tmp_path: Path) -> None:
    trained = model("extra-state")
    trained.extra.state = state
    with pytest.raises(WeightsError, match=r"'extra\._extra_state'.*expected a tensor"):
        save_model(trained, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("state", [None, {}, b""])
def test_extra_state_of_nothing_is_left_out_and_told(state: Any, tmp_path: Path) -> None:
    trained = model("extra-state")
    trained.extra.state = state
    report = save_model(trained, tmp_path)
    assert ["_extra_state" in text for text in report.warnings] == [True]
    assert "extra._extra_state" not in load_file(tmp_path / "model.safetensors")


def test_extra_state_that_is_empty_is_saved(tmp_path: Path) -> None:
    trained = model("extra-state")
    trained.extra.state = torch.empty(0, dtype=torch.uint8)  # as TransformerEngine without float8
    assert not save_model(trained, tmp_path).warnings
    assert load_file(tmp_path / "model.safetensors")["extra._extra_state"].numel() == 0


def _without(name: str) -> Any:
    def remove(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        del module, metadata
        del state[f"{prefix}{name}"]

    return remove


def test_rules_that_leave_out_a_trained_tensor_are_refused(tmp_path: Path) -> None:
    trained = model("parametrized")
    trained.extra.register_state_dict_post_hook(_without("bias"))
    with pytest.raises(WeightsError, match=r"'extra\.bias'.*WithExtra leave it out"):
        save_model(trained, tmp_path / "m")
    trained.extra.bias.requires_grad_(False)
    assert "'extra.bias'" in save_model(trained, tmp_path / "m").warnings[0]


def test_rules_that_leave_out_one_name_of_a_tied_tensor_keep_it(tmp_path: Path) -> None:
    trained = model("parametrized")
    trained.extra.register_parameter("copy", trained.extra.bias)
    trained.extra.register_state_dict_post_hook(_without("copy"))
    assert not save_model(trained, tmp_path).warnings


def test_plan_of_own_rules_without_data(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    expected = save_model(model("added"), tmp_path / "m").bytes
    with torch.device("meta"):
        planned = plan(model("added"))
    assert [file.size for file in planned] == [expected]


def test_own_rules_of_a_base_to_merge_into_are_refused(tmp_path: Path) -> None:
    adapted = get_peft_model(model("added"), LoraConfig(target_modules=["q_proj"]))
    cfg = {"output_dir": tmp_path / "m", "relora": True}
    with pytest.raises(WeightsError, match=r"relora.*WithExtra"):
        save_trained_model(cfg, None, adapted)
    assert not (tmp_path / "m").exists()
