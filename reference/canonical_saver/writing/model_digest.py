"""The digest of a model: a Merkle root over its tensors, see ``docs/reference/digest.md``.

It depends on the names, dtypes, shapes and bytes of the tensors alone. Version 1:

    leaf(piece)    = SHA-256(0x00, piece)          pieces of 256 KiB, the last one shorter
    node(a, b)     = SHA-256(0x01, a, b)
    tree(digests)  = the digest itself if it is one; SHA-256() of nothing if there is none; else
                     node(tree(first k), tree(rest)), k the largest power of two below their number
    tensor         = SHA-256(0x02, text(name), text(dtype), u64(rank), u64(sizes)..., tree(leaves))
    model          = SHA-256(0x03, u64(number of tensors), tree(tensors in order of their names))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PIECE = 2**18
"""Bytes of a tensor that one leaf stands for."""

VERSION = "canonical-saver-digest-1"


@dataclass(frozen=True)
class TensorDigest:
    """A tensor and its digest.

    Attributes:
        name: its name, behind the folder of its weights and a slash where they have one.
        dtype: as safetensors names it.
        shape: its shape.
        digest: its digest.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: bytes


def leaf(piece: bytes | memoryview) -> bytes:
    """Digest a piece of a tensor."""
    hashed = begin_leaf()
    hashed.update(piece)
    return hashed.digest()


def begin_leaf() -> hashlib._Hash:
    """Begin to digest a piece of a tensor that comes in parts."""
    return hashlib.sha256(b"\x00")


def tree(digests: Sequence[bytes]) -> bytes:
    """The root over digests, in their order, as RFC 6962 puts them together."""
    if not digests:
        return hashlib.sha256().digest()
    row = list(digests)
    # Pairing neighbours, and moving an odd last one up, makes the same tree level by level.
    while len(row) > 1:
        above = [
            hashlib.sha256(b"\x01" + row[number] + row[number + 1]).digest()
            for number in range(0, len(row) - 1, 2)
        ]
        row = above + row[len(above) * 2 :]
    return row[0]


def tensor_digest(
    name: str, dtype: str, shape: Sequence[int], leaves: Sequence[bytes]
) -> TensorDigest:
    """Digest a tensor.

    Args:
        name: its name.
        dtype: as safetensors names it.
        shape: its shape.
        leaves: the digests of its pieces.
    """
    hashed = hashlib.sha256(b"\x02")
    for text in (name, dtype):
        raw = text.encode()
        hashed.update(_number(len(raw)) + raw)
    for number in (len(shape), *shape):
        hashed.update(_number(number))
    hashed.update(tree(leaves))
    return TensorDigest(name, dtype, tuple(shape), hashed.digest())


def model_digest(tensors: Sequence[TensorDigest]) -> str:
    """Digest a model, in hex."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    root = tree([tensor.digest for tensor in ordered])
    return hashlib.sha256(b"\x03" + _number(len(ordered)) + root).hexdigest()


def digests_json(tensors: Sequence[TensorDigest]) -> str:
    """The digests of a model and of its tensors, as ``model.digests.json`` has them."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    content: Mapping[str, object] = {
        "version": VERSION,
        "digest": model_digest(tensors),
        "tensors": {
            one.name: {
                "dtype": one.dtype,
                "shape": list(one.shape),
                "digest": one.digest.hex(),
            }
            for one in ordered
        },
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """Yield first byte and size of each piece of a tensor of so many bytes."""
    for start in range(0, size, PIECE):
        yield start, min(PIECE, size - start)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")
