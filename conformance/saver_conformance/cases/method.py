"""The methods of training: what is trained of a model."""

from __future__ import annotations

from typing import Literal

Method = Literal["full", "lora", "qlora"]

METHODS: tuple[Method, ...] = ("full", "lora", "qlora")
