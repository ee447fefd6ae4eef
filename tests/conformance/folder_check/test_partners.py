"""``check`` misses no half of what an adapter of another kind than LoRA has together."""

from __future__ import annotations

import pytest
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tests.helpers import models, tuners
from tests.helpers.saved_folders import change_tensors, defects

from saver_conformance.folder_check import partners

TOGETHER = [
    (kind, part)
    for kind, groups in partners._TOGETHER.items()
    for group in groups
    for part in group
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The adapter of each kind, as PEFT saves it, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
                pytest.skip(f"this PEFT has no {kind}")
            options = dict(tuners.OPTIONS.get(kind, tuners.TARGETS))
            if kind == "LOKR":
                options |= {"r": 1, "decompose_both": True, "decompose_factor": 4}
            config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**options)
            folder = tmp_path_factory.mktemp("saved") / kind
            get_peft_model(models.llama(), config).save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return get


@pytest.mark.parametrize("kind", partners._TOGETHER)
def test_check_of_a_whole_adapter_finds_no_defect(saved, kind):
    assert defects(saved(kind)) == set()


@pytest.mark.parametrize(("kind", "part"), TOGETHER)
def test_check_of_an_adapter_without_a_partner_finds_it_missing(saved, kind, part, tmp_path):
    lost = []

    def without(found):
        lost.extend([name for name in found if f".{part}" in name][:1])
        return {name: tensor for name, tensor in found.items() if name not in lost}

    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in saved(kind).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change_tensors(folder / "adapter_model.safetensors", without)
    assert lost
    assert "TENSOR-001" in defects(folder)
