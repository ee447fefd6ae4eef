"""A tiny fast tokenizer, made in code."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
)
"""Chat template of the tokenizers that have one."""


def make_tokenizer(
    size: int, *, chat: bool, added: Sequence[str] = (), own: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with ``size`` tokens, ``w0 w1 ...`` beside the special ones.

    Those are the four that every tokenizer has, and the model's ``own``. The special tokens
    ``added`` come on top of them.
    """
    special = ["<pad>", "<s>", "</s>", "<unk>", *own]
    words = special + [f"w{index}" for index in range(size - len(special))]
    backend = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    # Both are known to every program that reads the folder: mistral.rs takes no other decoder, and
    # transformers.js splits at other places where a pattern has classes of Unicode.
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    if more := [*own, *added]:
        tokenizer.add_special_tokens({"additional_special_tokens": more})
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
