"""``tokenizer_config.json`` as tokenizers of transformers 4 read it too.

transformers 5 reads each of these spellings as its own: it takes ``PreTrainedTokenizerFast`` as
another name of ``TokenizersBackend`` (tokenization_utils_tokenizers.py) and
``additional_special_tokens`` for ``extra_special_tokens`` where there are none
(``PreTrainedTokenizerBase._from_pretrained``), and prefers templates in files of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canonical_saver.publishing.portable.key import Key

_OF_4 = "transformers 4 and llama.cpp's converter"
_OF_INLINE = "transformers.js and others that read no chat_template.jinja"


_USUAL = frozenset(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def portable(
    config: Mapping[str, Any], templates: Mapping[str, str]
) -> tuple[dict[str, Any], list[Key]]:
    """Make a tokenizer's configuration that readers of both versions understand.

    Args:
        config: what ``tokenizer_config.json`` has.
        templates: the chat templates in files of their own by their names, ``default`` being that
            of ``chat_template.jinja``.

    Returns:
        The configuration, and what was added to it.
    """
    made = dict(config)
    added: list[Key] = []

    def put(name: str, value: Any, readers: str) -> None:
        made[name] = value
        added.append(Key((), name, value, readers))

    if made.get("tokenizer_class") == "TokenizersBackend":
        put("tokenizer_class", "PreTrainedTokenizerFast", _OF_4)
    if isinstance(extra := made.get("extra_special_tokens"), list):
        # transformers 4 fails on a list there, so that it cannot stay next to the old name.
        del made["extra_special_tokens"]
        if extra:
            put("additional_special_tokens", extra, _OF_4)
    named = _named(made)
    # Where there are both, transformers 5 would no longer read the old name of the list.
    if named and "additional_special_tokens" not in made:
        put("extra_special_tokens", named, _OF_4)
    if templates and "chat_template" not in made:
        several = [{"name": name, "template": text} for name, text in templates.items()]
        put(
            "chat_template",
            templates["default"] if list(templates) == ["default"] else several,
            _OF_INLINE,
        )
    return made, added


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that have names of the model's own, such as ``image_token``."""
    held = config.get("model_specific_special_tokens")
    found = {**(held if isinstance(held, Mapping) else {}), **config}
    return {
        name: token
        for name, token in found.items()
        if name.endswith("_token") and name not in _USUAL and isinstance(token, str)
    }
