"""Nothing is changed."""

from __future__ import annotations

from saver_conformance.cases.setting import Setting

USUAL = Setting(
    name="usual",
    place=0,
    text="what each engine's documentation asks for where whole weights shall be saved",
)
