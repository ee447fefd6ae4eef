"""The folder that becomes the saved model, as it is given."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from canonical_saver.errors import RequestError

_UNSET = re.compile(r"\$\{[^/}]+\}|(?:^|(?<=/))\$[A-Za-z_]\w*(?=/|$)")
"""A variable of a shell, or of a configuration, that was not expanded."""


def parse(value: Any) -> Path:
    """Make an absolute path of what names a folder of this machine.

    Raises:
        RequestError: it names none; says what it looks like.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise RequestError(f"output_dir: expected the path of a folder, found {value!r}; name one")
    # A path object has made one slash of two, and some file systems are named with one: dbfs:/x.
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+://?", path):
        raise RequestError(
            f"output_dir: expected the path of a folder on this machine, found {path!r}; save to a "
            f"folder, then upload it to {scheme.group()}"
        )
    if variable := _UNSET.search(path):
        raise RequestError(
            f"output_dir: expected the path of a folder, found {path!r}, where nothing has put a "
            f"value in the place of {variable.group()}; write the path out, or expand "
            "it by os.path.expandvars"
        )
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise RequestError(
            f"output_dir: expected the home of a user, found none for {path!r} ({error}); write "
            "the path out"
        ) from error
