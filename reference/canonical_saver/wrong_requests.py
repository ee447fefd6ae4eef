"""What to say of a model, a tokenizer or a callback that is none."""

from __future__ import annotations

from typing import Any

from torch import nn

from canonical_saver.errors import RequestError
from canonical_saver.request import can_be_saved


def refusal(model: Any, tokenizer: Any, progress: Any) -> RequestError:
    """Say which of the three is wrong, and what was expected."""
    if not isinstance(model, nn.Module):
        return RequestError(
            f"model: expected a torch.nn.Module, found {type(model).__name__}; pass the model "
            "that was trained"
        )
    if tokenizer is not None and not can_be_saved(tokenizer):
        return RequestError(
            "tokenizer: expected a tokenizer or processor with a method save_pretrained, found "
            f"{tokenizer!r:.80}; load it first, as AutoTokenizer.from_pretrained does"
        )
    return RequestError(f"progress: expected a function, true or false, found {progress!r}")
