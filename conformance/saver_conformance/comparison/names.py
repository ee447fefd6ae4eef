"""Which tensor of a base a name of a fine-tuned model or of an adapter means."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

_MAX_NAME = 1000
_FIRST_PARTS = 2
_MAX_DEPTH = 20
# Parts that the class of a model adds, or that its files name in another way than its modules.
_OUTER_PARTS = frozenset({"model", "language_model", "transformer", "base_model"})
_SAME_PARTS = {"block_sparse_moe": "mlp"}
_LAYER = re.compile(r"\.(\d{1,6})\.")


class BaseNames:
    """The names of a base, to be found under the names of modules, too."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._by_core: dict[str, list[str]] = defaultdict(list)
        self._below: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            plain = core(name)
            self._by_core[plain].append(name)
            parts = plain.split(".", _MAX_DEPTH + 1)
            for depth in range(1, min(len(parts), _MAX_DEPTH)):
                self._below[".".join(parts[:depth])].append(name)

    def find(self, name: str) -> str | None:
        """The tensor that ``name`` means; None where there is none, or more than one."""
        if name in self._names:
            return name
        found = self._by_core.get(core(name), ())
        return found[0] if len(found) == 1 else None

    def below(self, path: str) -> dict[str, str]:
        """The tensors below the module at ``path``, by the rest of their names."""
        start = core(path)
        found = {core(name)[len(start) + 1 :]: name for name in self._below.get(start, ())}
        return {
            rest: name for rest, name in found.items() if len(self._by_core[f"{start}.{rest}"]) == 1
        }


def core(name: str) -> str:
    """``name`` without the parts that depend on the class that was saved."""
    if len(name) > _MAX_NAME:
        return name
    parts = name.split(".")
    return ".".join(_SAME_PARTS.get(part, part) for part in parts if part not in _OUTER_PARTS)


def align(names: Collection[str], base: Collection[str]) -> Mapping[str, str]:
    """The base's name for each of ``names`` that means one of its tensors.

    Names are taken as they are, unless leaving out or adding parts finds more.
    """
    known = frozenset(base)
    ways = [{name: name for name in names if name in known}]
    for part in _first_parts(names) | _first_parts(base):
        start = f"{part}."
        ways.append(
            {n: n[len(start) :] for n in names if n.startswith(start) and n[len(start) :] in known}
        )
        ways.append({name: start + name for name in names if start + name in known})
    # Parts that the class of a model adds stand anywhere in the names of models of several parts.
    found = BaseNames(base)
    by_core = {other: name for name in names if (other := found.find(name)) is not None}
    ways.append({name: other for other, name in by_core.items()})
    return max(ways, key=len)


def _first_parts(names: Iterable[str]) -> set[str]:
    """The first parts that most of the names have."""
    counts = Counter(name[:_MAX_NAME].partition(".")[0] for name in names)
    return {part for part, _ in counts.most_common(_FIRST_PARTS)}


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    found = _LAYER.search(name[:_MAX_NAME])
    return int(found[1]) if found else None


def in_words(names: Collection[str], shown: int = 3) -> str:
    """Tensors in words: layers as ranges, or the first names."""
    layers = sorted({layer for name in names if (layer := layer_of(name)) is not None})
    what = "experts" if names and all(".experts." in f"{name}." for name in names) else ""
    where = f"layers {ranges(layers)}" if layers else ""
    listed = ", ".join(sorted(names)[:shown]) + (", ..." if len(names) > shown else "")
    return "; ".join(part for part in (what, where, listed) if part)


def ranges(numbers: list[int]) -> str:
    """Ascending numbers as ranges: ``0-3, 7``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in found]
    return ", ".join(words[:10]) + (", ..." if len(words) > 10 else "")
