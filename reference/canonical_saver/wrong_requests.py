"""What becomes of a model, a tokenizer or a callback that is none."""

from __future__ import annotations

from typing import Any

from torch import nn

from canonical_saver.errors import RequestError
from canonical_saver.request import can_be_saved


def module_inside(model: Any, tokenizer: Any, progress: Any) -> nn.Module:
    """Take the module out of a wrapper that is none itself.

    Raises:
        RequestError: there is none, or the tokenizer or the callback is wrong; says which of the
            three, and what was expected.
    """
    inner = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(inner, nn.Module):
        raise RequestError(
            f"model: expected a torch.nn.Module, found {type(model).__name__}; pass the model "
            "that was trained"
        )
    if tokenizer is not None and not can_be_saved(tokenizer):
        raise RequestError(
            "tokenizer: expected a tokenizer or processor with a method save_pretrained, found "
            f"{tokenizer!r:.80}; load it first, as AutoTokenizer.from_pretrained does"
        )
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise RequestError(f"progress: expected a function, true or false, found {progress!r}")
    return inner
