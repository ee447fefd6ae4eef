"""The one table of what differs between the library versions that the saver runs on.

The saver is written for the newest versions. Each row says what is otherwise before some version; a
module that asks for a version in another way is in the wrong place.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from packaging.version import Version


@dataclass(frozen=True, slots=True)
class Difference:
    """What a library does since a version.

    Attributes:
        library: its distribution's name.
        since: the first version that does it.
        what: what it does, and what is otherwise before.
    """

    library: str
    since: str
    what: str

    @property
    def is_there(self) -> bool:
        """Whether the installed version does it; one before the release of ``since`` does too."""
        installed = Version(version(self.library))
        return Version(installed.base_version) >= Version(self.since)


PEFT_KINDS_KNOW_THEIR_TENSORS = Difference(
    "peft",
    "0.21",
    "each kind of adapter finds its tensors by the layers that it changed; before, one function "
    "finds those of all kinds by parts of names, and modules that are trained whole too",
)
