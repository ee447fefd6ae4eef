"""The command line: finish a save that was cut off, see what one would write, digest a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``canonical-saver``.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Returns:
        0 when done, 1 when it failed.
    """
    parsed = make_parser().parse_args(arguments)

    if parsed.command == "completion":
        return _print_completion(parsed.shell)

    from canonical_saver.errors import SaveError

    if not parsed.folder.is_dir():
        print(f"canonical-saver: expected a folder, found none: {parsed.folder}", file=sys.stderr)
        return 1
    try:
        if parsed.command == "recover":
            _recover(parsed.folder)
        elif parsed.command == "digest":
            _digest(parsed.folder, tensors=parsed.tensors)
        else:
            _plan(parsed.folder, parsed.max_shard_size, parsed.dtype)
    except (SaveError, OSError, ValueError) as error:
        print(f"canonical-saver: {error}", file=sys.stderr)
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="canonical-saver", description=__doc__, **_example("canonical-saver recover out")
    )
    installed = f"%(prog)s {version('canonical-saver')}"
    parser.add_argument("--version", action="version", version=installed)
    commands = parser.add_subparsers(dest="command", required=True)
    recovering = commands.add_parser(
        "recover",
        help="finish or undo a save that was cut off",
        **_example("canonical-saver recover out"),
    )
    recovering.add_argument("folder", type=Path, help="the folder of the saved model")
    planning = commands.add_parser(
        "plan",
        help="list the weight files that a save would write",
        **_example("canonical-saver plan base --max-shard-size 5GB --dtype bfloat16"),
    )
    planning.add_argument("folder", type=Path, help="a folder with the config.json of the model")
    planning.add_argument("--max-shard-size", default=None, help="such as 5GB; by default 50GB")
    planning.add_argument("--dtype", default=None, help="such as bfloat16; by default the model's")
    digesting = commands.add_parser(
        "digest",
        help="print the digest of a saved model",
        **_example("canonical-saver digest out --tensors"),
    )
    digesting.add_argument("folder", type=Path, help="the folder of the saved model")
    digesting.add_argument(
        "--tensors", action="store_true", help="print the digest of each tensor too, as JSON"
    )
    completing = commands.add_parser(
        "completion",
        help="print a script for completion in a shell; needs the extra 'completion'",
        **_example(
            "canonical-saver completion fish > ~/.config/fish/completions/canonical-saver.fish"
        ),
    )
    completing.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _example(line: str) -> dict[str, Any]:
    """The end of a command's help."""
    return {
        "epilog": f"Example:\n  {line}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _print_completion(shell: str) -> int:
    try:
        shtab = import_module("shtab")
    except ImportError:
        print(
            "canonical-saver: expected the library shtab, found none; "
            'pip install "canonical-saver[completion]"',
            file=sys.stderr,
        )
        return 1
    print(shtab.complete(make_parser(), shell=shell))
    return 0


def _recover(folder: Path) -> None:
    from canonical_saver.publishing import stale_files
    from canonical_saver.publishing.recovery import recover
    from canonical_saver.publishing.staging import STAGING

    found = (folder / STAGING).exists()
    if recover(folder):
        print(f"{folder}: a save that was cut off is now finished")
        return
    holds = stale_files.holds_model(folder)
    none = "" if holds else f"; there is no model in {folder}"
    if found:
        unchanged = "; the model that was there before is unchanged" if holds else ""
        print(f"{folder}: what a save that was cut off had staged was removed{none or unchanged}")
    else:
        print(f"{folder}: nothing to recover{none}")


def _digest(folder: Path, *, tensors: bool) -> None:
    from canonical_saver.proving.folder_digest import digest_folder
    from canonical_saver.writing.model_digest import digests_json, model_digest

    found = digest_folder(folder)
    print(digests_json(found) if tensors else model_digest(found), end="" if tensors else "\n")


def _plan(folder: Path, max_shard_size: str | None, dtype: str | None) -> None:
    import torch
    import transformers

    from canonical_saver.errors import RequestError
    from canonical_saver.planned_files import plan
    from canonical_saver.weights.casting import has_quantization

    config = transformers.AutoConfig.from_pretrained(folder)
    name = next(iter(config.architectures or ()), "")
    kind = getattr(transformers, name, None)
    if kind is None:
        raise RequestError(
            f"config.json: expected an architecture of transformers, found '{name}'; for a model "
            "of your own call canonical_saver.plan"
        )
    if has_quantization(config):
        raise RequestError(
            "config.json: expected a model that is not quantized, found a quantization_config, "
            "whose weights are known only once they are loaded; load the model and call "
            "canonical_saver.plan"
        )
    with torch.device("meta"):
        model = kind(config)
    files = plan(model, max_shard_size=max_shard_size, dtype=dtype or config.dtype)
    for file in files:
        print(f"{file.size:>16,} bytes  {file.name}")
    print(f"{sum(file.size for file in files):>16,} bytes  in all, {len(files)} files")


if __name__ == "__main__":
    sys.exit(main())
