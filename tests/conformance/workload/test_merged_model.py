"""What is expected of a merged model is PEFT's merge of the trained bits."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from saver_conformance.cases.case import Mode
from saver_conformance.cases.strategies import make_case, with_family
from saver_conformance.workload import merged_model, models, oracle, training

LORA = Mode("lora", "single")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dtype": "bfloat16", "targets": "all"},
        {"dora": True, "names": ("default", "style")},
        {"kind": "ia3"},
        {"kind": "target_parameters"},
        {"architecture": "llama-tied", "vocabulary": "resized"},
    ],
    ids=str,
)
def test_merge_is_that_of_the_trained_model(values: dict, tmp_path: Path) -> None:
    case = make_case(LORA, with_family({**values, "result": "merged"}))
    models.save_base(case, tmp_path / "base")
    whole = merged_model.make_whole(case, tmp_path / "base")
    trained = training.adapt(models.load_base(case, tmp_path / "base"), case)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    names = oracle.read_names(trained, case.family)
    bits = oracle.snapshot("single", trained, names, names.of_whole_model)
    found = merged_model.merge(whole, case, bits)
    wanted = copy.deepcopy(trained).merge_and_unload()
    own = oracle.read_names(wanted, case.family)
    assert found.memory == oracle.snapshot("single", wanted, own, own.of_whole_model)
    assert (found.names.tied, type(found.model)) == (own.tied, type(wanted))


def test_merge_other_tensors_are_an_error_of_ours(tmp_path: Path) -> None:
    case = make_case(LORA, {"result": "merged"})
    models.save_base(case, tmp_path / "base")
    trained = training.adapt(models.load_base(case, tmp_path / "base"), case)
    names = oracle.read_names(trained, case.family)
    bits = oracle.snapshot("single", trained, names, names.of_whole_model)
    other = {**bits, "another": next(iter(bits.values()))}
    with pytest.raises(RuntimeError, match="another"):
        merged_model.merge(merged_model.make_whole(case, tmp_path / "base"), case, other)
    fewer = dict(list(bits.items())[1:])
    with pytest.raises(RuntimeError, match="the trained model lacks"):
        merged_model.merge(merged_model.make_whole(case, tmp_path / "base"), case, fewer)
