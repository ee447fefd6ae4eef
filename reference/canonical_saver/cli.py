"""The command line: finish or undo a save that was cut off."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``canonical-saver``.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Returns:
        0 when done, 1 when it failed.
    """
    parser = argparse.ArgumentParser(prog="canonical-saver", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recovering = commands.add_parser("recover", help="finish or undo a save that was cut off")
    recovering.add_argument("folder", type=Path, help="the folder of the saved model")
    parsed = parser.parse_args(arguments)
    return _recover(parsed.folder)


def _recover(folder: Path) -> int:
    from canonical_saver.errors import SaveError
    from canonical_saver.publish import STAGING, recover

    if not folder.is_dir():
        print(f"canonical-saver: expected a folder, found none: {folder}", file=sys.stderr)
        return 1
    found = (folder / STAGING).exists()
    try:
        finished = recover(folder)
    except (SaveError, OSError) as error:
        print(f"canonical-saver: {error}", file=sys.stderr)
        return 1
    if finished:
        print(f"{folder}: a save that was cut off is now finished")
    elif found:
        print(f"{folder}: an unfinished save was removed, the model before it is whole")
    else:
        print(f"{folder}: nothing to recover")
    return 0


if __name__ == "__main__":
    sys.exit(main())
