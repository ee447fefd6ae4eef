"""What the tests need of the installed libraries, of which older ones cannot do all."""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version


def is_at_least(library: str, wanted: str) -> bool:
    """Whether the installed version of a library is ``wanted`` or a later one."""
    return Version(version(library)) >= Version(wanted)


PEFT_SAVES_BIASES_OF_LORA_ONLY = is_at_least("peft", "0.21")
"""Older versions look for them without the layer around them, and find none."""
