"""The model card of an adapter, for people and for the hub: it tells no path of this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        base: name of the base model as PEFT has it, if any: an id on the hub, or a path.
        base_class: name of the base model's class.
        method: such as ``LORA``.
        model: name of the folder that is loaded.
        subfolder: where in it the adapter is, "" for the folder itself.
        mark: the line by which a later save knows the card.
    """

    base: object
    base_class: str
    method: str
    model: str
    subfolder: str
    mark: str

    def text(self) -> str:
        """Write the card."""
        base = hub_id(self.base)
        data = ModelCardData(base_model=base, library_name="peft", tags=[self.method.lower()])
        place = f", subfolder={_quoted(self.subfolder)}" if self.subfolder else ""
        return "\n".join(
            [
                "---",
                data.to_yaml(line_break="\n"),
                "---",
                self.mark,
                "",
                f"# {self.method} adapter",
                "",
                f"Trained with {self.method} (PEFT) on `{base or self.base_class}`.",
                "",
                "```python",
                "from peft import PeftModel",
                f"from transformers import {self.base_class}",
                "",
                f"base = {self.base_class}.from_pretrained({_quoted(base or 'the base model')})",
                f"model = PeftModel.from_pretrained(base, {_quoted(self.model)}{place})",
                "```",
                "",
            ]
        )


def hub_id(base: object) -> str | None:
    """The name of a base model if it can be one on the hub; a path of this machine is none."""
    if not isinstance(base, str) or not base or os.path.lexists(base):
        return None
    try:
        validate_repo_id(base)
    except HFValidationError:
        return None
    return base


def _quoted(text: str) -> str:
    """A Python literal of a text; JSON's escapes are Python's as well."""
    return json.dumps(text, ensure_ascii=False)
