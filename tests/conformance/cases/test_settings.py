"""Settings of training register themselves, and reach training and ``cfg`` alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.axis_text import explain
from saver_conformance.cases.case import MODES, Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.settings import settings
from saver_conformance.cases.strategies import make_case


@pytest.mark.slow
def test_the_usual_setting_is_the_first_and_changes_nothing() -> None:
    usual, *_ = settings().values()
    assert usual.name == "usual"
    for mode in MODES:
        case = make_case(mode, {})
        assert case.arguments == mode.definition.arguments(case)


@pytest.mark.slow
@pytest.mark.parametrize("setting", list(settings().values())[1:], ids=lambda one: one.name)
def test_every_other_setting_changes_what_training_or_the_saver_is_given(setting, tmp_path) -> None:
    from saver_conformance.workload.config import make_config

    def given(case):
        output = case.training_setting.output(tmp_path / "out")
        cfg = make_config(case, tmp_path / "base", output, 0)
        return case.arguments, case.base_bits, case.training_setting.content, cfg

    assert setting.name in explain("setting")
    modes = [mode for mode in MODES if setting.applies(mode.name)]
    assert modes
    for mode in modes:
        case = make_case(mode, {"setting": setting.name})
        assert given(case) != given(make_case(mode, {}))
        assert case.setting in {one.setting for one in cases_of(mode, "survey")}


def test_settings_of_a_mode_are_in_its_gate() -> None:
    mode = Mode("lora", "fsdp1")
    planned = {case.setting for case in cases_of(mode, "gate")}
    assert planned == {one.name for one in settings().values() if one.applies(mode.name)}
    assert {"usual", "sharded-state-dict", "local-state-dict", "autocast"} < planned


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


def test_the_output_folder_has_other_paths(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "case" / "out"
    folder.parent.mkdir()
    assert settings()["relative-output"].output(folder) == Path("case/out")
    assert not folder.exists()
    for _ in range(2):  # each rank does so
        link = settings()["linked-output"].output(folder)
        assert link.is_symlink()
        assert link.resolve() == folder


def test_an_unnamed_engine_and_a_base_by_name_reach_cfg(tmp_path: Path) -> None:
    from saver_conformance.workload.config import make_config

    def cfg(mode: str, setting: str):
        case = make_case(Mode.parse(mode), {"setting": setting})
        return make_config(case, tmp_path, tmp_path, 0)

    for mode in ("full-fsdp1", "lora-fsdp2", "full-zero3"):
        assert cfg(mode, "usual").deepspeed or cfg(mode, "usual").fsdp_config
        unnamed = cfg(mode, "unnamed-engine")
        assert not {"deepspeed", "fsdp_config", "fsdp_version"} & set(unnamed)
    assert cfg("lora-single", "hub-base").base_model == "saver-conformance/tiny"
