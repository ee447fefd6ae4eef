"""What a comparison has to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence about a folder.

    Attributes:
        is_wrong: whether it is wrong for sure; otherwise it is only worth knowing.
        text: the sentence, which can hold names of untrusted files.
        tensors: the tensors that it is about.
    """

    is_wrong: bool
    text: str
    tensors: tuple[str, ...] = ()
