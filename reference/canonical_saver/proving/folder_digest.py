"""The digest of a saved model, read from its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from canonical_saver.errors import ProofError
from canonical_saver.file_io import as_memoryview
from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.proving.comparison import FoundBytes
from canonical_saver.proving.found_tensors import FoundTensor, FoundWeights
from canonical_saver.proving.matching import Match, Way
from canonical_saver.proving.places import lay_out
from canonical_saver.proving.safe_files import quoted
from canonical_saver.proving.weight_files import contents_of, read_weights
from canonical_saver.weights.saved_tensors import SavedTensor
from canonical_saver.writing.model_digest import PIECE, TensorDigest, leaf, pieces, tensor_digest

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def digest_folder(folder: Path) -> list[TensorDigest]:
    """Digest the weights that a loader takes from a folder: of an adapter, or of a whole model.

    The adapters in folders below that of an adapter belong to it, as one save writes them.

    Args:
        folder: the folder.

    Raises:
        ProofError: there are no weights in it, or they cannot be read.
    """
    found = [there for there in _weights(folder) if there.tensors or there.problems]
    problems = [text for there in found for text in there.problems]
    if problems or not found:
        raise ProofError(
            f"{folder}: expected weights that a loader takes, found {'; '.join(problems) or 'none'}"
        )
    matches = [_match(there.folder, tensor) for there in found for tensor in there.tensors]
    places = lay_out(matches)
    buffer = torch.empty(PIECE, dtype=torch.uint8)
    digests = []
    with FoundBytes(folder, places) as files:
        for key in places.all_keys():
            match, placed, leaves = places.match(key), places.placed(key), []
            for start, size in pieces(placed.size):
                piece = buffer[:size]
                files.read(key[0], placed.offset + start, piece)
                leaves.append(leaf(as_memoryview(piece)))
            digests.append(tensor_digest(match.label, match.found.dtype, match.found.shape, leaves))
    return digests


def _weights(folder: Path) -> list[FoundWeights]:
    contents = contents_of(folder)
    if contents.whole and "" not in contents.adapters:
        return [read_weights(folder, "", adapter=False)]
    return [read_weights(folder, name, adapter=True) for name in contents.adapters]


def _match(folder: str, found: FoundTensor) -> Match:
    dtype = _DTYPES.get(found.dtype)
    if dtype is None:
        raise ProofError(
            f"{found.file}: expected dtypes that torch has, found {found.dtype} of "
            f"{quoted(found.name)}"
        )
    saved = SavedTensor(found.name, dtype, found.shape, ())
    return Match(found, saved, dtype, dtype, Way.CANONICAL, folder)
