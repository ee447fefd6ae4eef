"""Settings of a folder are read as data, whatever they lack."""

from __future__ import annotations

from typing import Any

import pytest

from canonical_saver.proving.companions import _reader_of
from canonical_saver.proving.safe_files import UnreadableError

PUBLISHED = {"model_type": "deepseek_v3", "scoring_func": "sigmoid", "topk_method": "noaux_tc"}


class Config:
    """Settings that are kept as they are."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        return cls(values)

    def to_dict(self) -> dict[str, Any]:
        return {key: dict(own) for key, own in self._values.items()}


READ = _reader_of(Config({"text_config": {"model_type": "deepseek_v3"}}))


def test_reader_of_leaves_out_what_a_portable_save_adds() -> None:
    assert READ({"text_config": PUBLISHED}) == {"text_config": {"model_type": "deepseek_v3"}}


def test_reader_of_keeps_an_added_setting_of_another_value() -> None:
    other = {**PUBLISHED, "scoring_func": "softmax"}
    assert READ({"text_config": other})["text_config"]["scoring_func"] == "softmax"


@pytest.mark.parametrize("values", [{}, {"text_config": None}, {"other": {}}])
def test_reader_of_settings_without_a_part_refuses_the_file(values: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError, match="expected settings of a Config"):
        READ(values)
