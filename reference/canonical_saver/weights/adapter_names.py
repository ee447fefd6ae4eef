"""The folder that an adapter's name stands for, as PEFT has it."""

from __future__ import annotations

from pathlib import PurePosixPath

from canonical_saver.errors import RequestError


def folder_of(adapter: str, in_root: str = "default") -> str:
    """Name the folder of an adapter, relative to the output folder; "" is that folder itself.

    Args:
        adapter: its name.
        in_root: the name of the adapter that lies in the output folder itself.

    Raises:
        RequestError: the name leads out of the output folder, or is none of a folder.
    """
    if adapter == in_root:
        return ""
    path = PurePosixPath(adapter)
    hidden = any(part.startswith(".") for part in path.parts)  # "..", and the staging folder
    if not adapter or path.is_absolute() or hidden or str(path) != adapter or "\0" in adapter:
        raise RequestError(
            "expected the name of an adapter that is a folder below the output folder, such as "
            f"'style' or 'org/style', found {adapter!r}; rename the adapter"
        )
    return adapter
