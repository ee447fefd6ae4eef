"""A tiny fast tokenizer, made in code."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
)
"""Chat template of the tokenizers that have one."""


def make_tokenizer(size: int, *, chat: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with ``size`` tokens, ``w0 w1 ...`` beside the four special ones."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = special + [f"w{index}" for index in range(size - len(special))]
    backend = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
