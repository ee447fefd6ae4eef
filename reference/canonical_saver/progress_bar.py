"""A bar of the progress, on a terminal that may be gone at any time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from canonical_saver.progress import Progress


class Bar:
    """A bar that is there from the first bytes on."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def show(self, now: Progress) -> None:
        """Show how far a rank has come."""
        bar = self._bar = self._bar or tqdm(desc="Saving", unit="B", unit_scale=True)
        bar.total = now.total_bytes
        bar.set_postfix_str(f"{now.files}/{now.total_files} files", refresh=False)
        bar.update(now.bytes - bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            with suppress(Exception):  # the terminal may be gone by now
                self._bar.close()
