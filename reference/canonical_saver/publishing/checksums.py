"""``SHA256SUMS``: a digest of each file of a save, to be checked by ``sha256sum -c``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from canonical_saver.publishing.stale_files import CHECKSUMS


def write_checksums(folder: Path) -> None:
    """Write the digests of all files in a folder and below into it, by their relative paths."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines))
