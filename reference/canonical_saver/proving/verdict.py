"""What all ranks found, put together to a proof."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from canonical_saver.proving.comparison import Evidence, Mismatch
from canonical_saver.proving.matching import Match, Matching, Way
from canonical_saver.proving.places import Key, Places
from canonical_saver.proving.proof import Cast, Difference, Proof, SwappedSlice
from canonical_saver.weights.saved_tensors import WeightSet

_EMBEDDINGS = ("embed_tokens", "lm_head")
"""What PEFT saves with an adapter, unchanged, when asked to."""


@dataclass(frozen=True)
class Verdict:
    """Puts together what all ranks found.

    Attributes:
        places: the layout of what was compared.
        matchings: how names were matched, for each place.
        weight_sets: what a save would hold there.
        differing: for each rank, what differs.
        explained: for each rank, what explains it.
        unseen: tensors that could not be compared in full.
    """

    places: Places
    matchings: Sequence[Matching]
    weight_sets: Sequence[WeightSet]
    differing: Sequence[Mapping[Key, Mismatch]]
    explained: Sequence[Mapping[Key, Evidence]]
    unseen: set[Key]

    def proof(self, root: Path) -> Proof:
        """What the tensors alone say.

        Args:
            root: the folder.
        """
        differing = sorted({key for mine in self.differing for key in mine})
        rounded = {key: to for key in differing if (to := self._rounding(key)) is not None}
        different = [key for key in differing if key not in rounded]
        equal = [k for k in self.places.all_keys() if k not in set(differing) | self.unseen]
        widened = [key for key in equal if self._was_cast(key)]
        roles = {key: self._role(self.places.match(key)) for key in equal}
        own = [k for k in equal if roles[k] == "own" and k not in set(widened)]
        casts = [self._cast(key, self.places.match(key).dtype) for key in widened]
        casts += [self._cast(key, to) for key, to in rounded.items()]
        return Proof(
            folder=root,
            proven=self._labels(own),
            missing=tuple(name for one in self.matchings for name in one.missing),
            foreign=(
                *(name for one in self.matchings for name in one.foreign),
                *self._labels(key for key in equal if roles[key] == "foreign"),
            ),
            different=tuple(map(self._difference, different)),
            cast=tuple(casts),
            wrong_shape=tuple(wrong for one in self.matchings for wrong in one.wrong),
            all_zero=self._labels(key for key in different if self._is_zero(key)),
            swapped=tuple(swap for key in different for swap in self._swaps(key)),
            wrapper_names=tuple(name for one in self.matchings for name in one.wrappers),
            tied_twice=self._labels(key for key in equal if roles[key] == "tied"),
            unseen=self._labels(sorted(self.unseen)),
        )

    @cached_property
    def _identities(self) -> set[object]:
        """The tensors in memory of which a save holds something."""
        return {
            source_range.model_tensor.identity
            for one in self.weight_sets
            for saved in one.saved_tensors
            for source_range in saved.source_ranges or ()
        }

    def _role(self, match: Match) -> str:
        """What it means that a tensor is there, if its bytes are those of the model."""
        if match.way is Way.WRAPPER:
            return "wrapped"
        if match.way is not Way.AGAIN:
            return "own"
        (source,) = match.saved.source_ranges or ()
        if source.model_tensor.identity in self._identities:
            return "tied"
        adapter = any(w.adapter is not None for w in self.weight_sets if w.folder == match.place)
        module = match.found.name.rpartition(".")[0].rpartition(".")[2]
        # What is beside a whole model loads or is passed over; a base in an adapter is none.
        return "foreign" if adapter and module not in _EMBEDDINGS else "own"

    def _was_cast(self, key: Key) -> bool:
        match = self.places.match(key)
        return match.dtype != match.expected_dtype

    def _cast(self, key: Key, dtype: torch.dtype) -> Cast:
        match = self.places.match(key)
        lossless = _holds(dtype, match.saved.dtype)
        return Cast(match.label, str(dtype).removeprefix("torch."), lossless)

    def _rounding(self, key: Key) -> torch.dtype | None:
        """The widest dtype that all parts of a tensor were rounded to; None if there is none."""
        parts = [found[key].casts for found in self.explained if key in found]
        common = frozenset.intersection(*parts) if parts else frozenset[torch.dtype]()
        return max(common, key=lambda dtype: (dtype.itemsize, str(dtype)), default=None)

    def _is_zero(self, key: Key) -> bool:
        return all(found[key].zero for found in self.explained if key in found)

    def _swaps(self, key: Key) -> Iterator[SwappedSlice]:
        found = {rank: own[key] for rank, own in enumerate(self.explained) if key in own}
        for rank, mine in found.items():
            if mine.there in (b"", mine.mine):
                continue
            for other, theirs in found.items():
                if other != rank and theirs.mine == mine.there:
                    yield SwappedSlice(self.places.match(key).label, rank, other)
                    break

    def _difference(self, key: Key) -> Difference:
        found = {rank: own[key] for rank, own in enumerate(self.differing) if key in own}
        first = min(found.values(), key=lambda mismatch: mismatch.first)
        match = self.places.match(key)
        file, in_file = match.found.place(first.first, match.dtype.itemsize)
        return Difference(
            name=match.label,
            file=file,
            first=first.first,
            in_file=in_file,
            count=sum(mismatch.count for mismatch in found.values()),
            expected=first.expected,
            found=first.found,
            ranks=tuple(found),
        )

    def _labels(self, keys: Iterable[Key]) -> tuple[str, ...]:
        return tuple(self.places.match(key).label for key in keys)


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether each number of one dtype is one of another."""
    if not (wide.is_floating_point and narrow.is_floating_point):
        return wide == narrow
    mine, other = torch.finfo(wide), torch.finfo(narrow)
    return bool(
        mine.eps <= other.eps
        and mine.max >= other.max
        and mine.smallest_normal <= other.smallest_normal
    )
