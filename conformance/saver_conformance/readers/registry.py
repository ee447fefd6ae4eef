"""Finds readers: each program in ``programs/``, each entry point, and any file that is named.

A file in the folder is all that it takes; no list names it. Another package adds its own by an
entry point in the group ``saver_conformance.readers`` that names the program's module, which is
found and not imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType

from saver_conformance.readers.reader import Reader, ReaderError, read_reader

GROUP = "saver_conformance.readers"
PROGRAMS = Path(__file__).parent / "programs"
SUFFIXES = (".py", ".mjs")


def find_readers(folder: Path = PROGRAMS) -> Mapping[str, Reader]:
    """All readers by name, in their order.

    Raises:
        ReaderError: a program is no reader, or two have one name.
    """
    found: dict[str, Reader] = {}
    for program in (*_in_folder(folder), *_in_entry_points()):
        reader = read_reader(program)
        if reader.name in found:
            raise ReaderError(f"{program}: {reader.name!r} is registered already")
        found[reader.name] = reader
    ordered = sorted(found.values(), key=lambda reader: (reader.place, reader.name))
    return MappingProxyType({reader.name: reader for reader in ordered})


def choose(names: Sequence[str]) -> tuple[Reader, ...]:
    """The readers of these names; ``fast`` and ``all`` are groups, and a path names a program.

    Raises:
        ReaderError: there is no such reader.
    """
    known, chosen = find_readers(), dict[str, Reader]()
    for name in names:
        if name in ("fast", "all"):
            chosen |= {item.name: item for item in known.values() if item.fast or name == "all"}
        elif name in known:
            chosen[name] = known[name]
        elif name.endswith(SUFFIXES) and Path(name).is_file():
            reader = read_reader(Path(name).resolve())
            chosen[reader.name] = reader
        else:
            raise ReaderError(
                f"no reader is called {name!r}; there are {', '.join(known)}, the groups fast and "
                "all, and any program by its path"
            )
    return tuple(chosen.values())


def _in_folder(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES)


def _in_entry_points() -> Iterator[Path]:
    for point in entry_points(group=GROUP):
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            raise ReaderError(f"entry point {point.name} of {GROUP}: no module {point.module}")
        yield Path(spec.origin)
