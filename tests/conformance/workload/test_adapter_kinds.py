"""Each kind of adapter against PEFT's own save: keys, settings, and what is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saver_conformance.cases import adapter_kinds
from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.strategies import make_case, with_family
from saver_conformance.checks.adapter import _comparable
from saver_conformance.folder.safetensors import read_header
from saver_conformance.workload import models, oracle, prepare, training
from saver_conformance.workload.hub_names import adapter_key
from saver_conformance.workload.version_compat import why_unable

LORA = Mode("lora", "single")


def adapted(case: Case, folder: Path) -> Any:
    models.save_base(case, folder)
    return training.adapt(models.load_base(case, folder), case)


@pytest.mark.parametrize("kind", adapter_kinds.names())
def test_adapter_kind_has_the_keys_and_settings_of_peft(tmp_path: Path, kind: str) -> None:
    case = make_case(LORA, with_family({"kind": kind}))
    assert case.adapter is not None
    if reason := why_unable(case):
        pytest.skip(reason)
    model = adapted(case, tmp_path / "base")
    names = oracle.read_names(model, case.family)
    model.save_pretrained(tmp_path / "saved")
    header = read_header(tmp_path / "saved" / "adapter_model.safetensors")
    assert names.trainable
    own = {name for name in names.buffers if adapter_key(name, kind=case.adapter.method) != name}
    assert set(header.tensors) == {
        adapter_key(name, kind=case.adapter.method) for name in names.trainable | own
    }
    found = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    for key, wanted in prepare._adapter_settings(case, case.adapter, tmp_path / "base").items():
        if key != "inference_mode":  # transformers leaves it as it is in training
            assert _comparable(found[key]) == _comparable(wanted), key


def test_adalora_of_half_precision_trains_what_peft_does_not_save(tmp_path: Path) -> None:
    """The reason of its limit; where this fails, PEFT has mended it and the limit can go."""
    case = make_case(LORA, {"kind": "adalora", "dtype": "bfloat16"})
    assert "unfreezes ranknum" in why_untrainable(case)
    model = adapted(case, tmp_path / "base")
    assert any(".ranknum." in name for name in oracle.read_names(model, case.family).trainable)


def test_names_of_the_base_have_the_prefix_of_an_injected_adapter_once() -> None:
    kinds = adapter_kinds.adapter_kinds()
    names = ("model.embed_tokens.base_layer.weight", "base_model.model.lm_head.weight")
    first, second = (f"base_model.model.{names[0]}", names[1])
    assert prepare._prefixed(kinds["add_adapter"], names) == {first, second}
    assert prepare._prefixed(kinds["lora"], names) == set(names)
