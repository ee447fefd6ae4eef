"""Settings of training register themselves, and reach training and ``cfg`` alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.axis_text import explain
from saver_conformance.cases.case import MODES, Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.settings import settings
from saver_conformance.cases.strategies import make_case


def test_the_usual_setting_is_the_first_and_changes_nothing() -> None:
    usual, *_ = settings().values()
    assert usual.name == "usual"
    for mode in MODES:
        case = make_case(mode, {})
        assert case.arguments == mode.definition.arguments(case)


@pytest.mark.parametrize("setting", list(settings().values())[1:], ids=lambda one: one.name)
def test_every_other_setting_changes_what_training_is_given(setting) -> None:
    assert setting.name in explain("setting")
    modes = [mode for mode in MODES if setting.applies(mode.name)]
    assert modes
    for mode in modes:
        case = make_case(mode, {"setting": setting.name})
        usual = make_case(mode, {})
        assert (case.arguments, case.base_bits) != (usual.arguments, usual.base_bits)
        assert case.setting in {one.setting for one in cases_of(mode, "survey")}


def test_settings_of_a_mode_are_in_its_gate() -> None:
    planned = {case.setting for case in cases_of(Mode("lora", "fsdp1"), "gate")}
    assert planned == {"usual", "sharded-state-dict", "local-state-dict", "autocast"}


def test_a_mode_without_the_setting_refuses_it() -> None:
    with pytest.raises(ValueError, match="full-ddp: this mode has no setting no-gather"):
        make_case(Mode("full", "ddp"), {"setting": "no-gather"})


def test_settings_reach_cfg(tmp_path: Path) -> None:
    from saver_conformance.workload.config import make_config

    def cfg(mode: str, setting: str):
        case = make_case(Mode.parse(mode), {"setting": setting})
        return make_config(case, tmp_path, tmp_path, 0)

    sharded = cfg("lora-fsdp2", "sharded-state-dict")
    assert sharded.fsdp_config.state_dict_type == "SHARDED_STATE_DICT"
    assert sharded.fsdp_config.final_state_dict_type == "SHARDED_STATE_DICT"
    zero = cfg("full-zero3", "no-gather").deepspeed.zero_optimization
    assert zero.stage3_gather_16bit_weights_on_model_save is False
    assert cfg("full-single", "autocast").bf16 is True
    assert cfg("full-single", "usual").bf16 is False


def test_a_base_of_8_bits_reaches_cfg_as_a_lora_on_it(tmp_path: Path) -> None:
    from saver_conformance.workload.config import make_config

    case = make_case(Mode("qlora", "ddp"), {"setting": "8-bit-base"})
    cfg = make_config(case, tmp_path, tmp_path, 0)
    assert (cfg.adapter, cfg.load_in_8bit, cfg.load_in_4bit) == ("lora", True, None)
    cfg = make_config(make_case(Mode("qlora", "ddp"), {}), tmp_path, tmp_path, 0)
    assert (cfg.adapter, cfg.load_in_8bit, cfg.load_in_4bit) == ("qlora", None, True)
