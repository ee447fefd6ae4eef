"""All or nothing: from a staged folder to the model's own.

Everything is made in a hidden folder inside the output folder and flushed to disk. Then a record of
what is to happen is put beside it: this is the commit. Only then is the output folder changed, by
steps that can be done again from the record, whenever they were cut off: the files without which
nothing loads go first and come last, so a half-changed folder refuses to load.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from canonical_saver.errors import RequestError, WriteError

STAGING = ".canonical-saver-staging"
RECORD = "COMMIT.json"
CHECKSUMS = "SHA256SUMS"

_WEIGHTS = re.compile(
    r"(model|pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index\.json)?"
    r"|__\d+_\d+\.distcp|\.metadata"
)
_GATES = re.compile(
    r".*\.index\.json|config\.json|adapter_config\.json|tokenizer_config\.json"
    r"|(pre)?processor_config\.json|\.metadata"
)
_TOKENIZER = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
        "vocab.json",
        "vocab.txt",
    }
)


class Staging:
    """The hidden folder of one save; for rank 0.

    Args:
        output_dir: the folder that becomes the saved model; made if it does not exist.

    Raises:
        RequestError: ``output_dir`` or the staging path is something else than a folder.
    """

    def __init__(self, output_dir: Path) -> None:
        if output_dir.exists() and not output_dir.is_dir():
            raise RequestError(f"output_dir: expected a folder, found a file: {output_dir}")
        output_dir.mkdir(parents=True, exist_ok=True)
        recover(output_dir)
        self.output_dir = output_dir
        self.folder = output_dir / STAGING
        self.folder.mkdir()

    def stale(self, *, adapter: bool, tokenizer: bool, folders: Iterable[str]) -> list[str]:
        """Name what an earlier save left and this one does not replace.

        Args:
            adapter: whether this save is one of adapters.
            tokenizer: whether this save brings a tokenizer or processor.
            folders: relative folders of adapters that are saved now, beside the output folder.
        """
        staged = set(_files(self.folder))
        found = []
        for folder in ("", *folders):
            place = self.output_dir / folder
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                name = path.name
                # .metadata alone may be anybody's; beside .distcp files it is DCP's.
                weights = _WEIGHTS.fullmatch(name) and (
                    name != ".metadata" or any(place.glob("*.distcp"))
                )
                old = bool(weights) or name == CHECKSUMS
                old = old or (name == "adapter_config.json" and not (folder or adapter))
                # AutoModel would take an adapter beside it for a whole model.
                whole = name in ("config.json", "generation_config.json")
                old = old or (whole and adapter and not folder)
                old = old or (name in _TOKENIZER and tokenizer and not folder)
                if old and not path.is_dir():
                    found.append(f"{folder}/{name}" if folder else name)
        templates = self.output_dir / "additional_chat_templates"
        if tokenizer and templates.is_dir() and not templates.is_symlink():
            found += [f"{templates.name}/{path.name}" for path in sorted(templates.glob("*.jinja"))]
        return [name for name in found if name not in staged]

    def commit(self, stale: list[str], mode: int) -> list[str]:
        """Make the staged files the model, and remove what is stale.

        Args:
            stale: files to remove, relative to the output folder.
            mode: permission bits of the files.

        Returns:
            The files of the model, relative to the output folder.

        Raises:
            WriteError: a folder is in the way of a file.
        """
        names = sorted(_files(self.folder))
        for name in names:
            if (self.output_dir / name).is_dir():
                raise WriteError(f"expected to put a file there, found a folder: {name}")
            path = self.folder / name
            path.chmod(mode)
            _flush(path)
        for folder in {self.folder, *((self.folder / name).parent for name in names)}:
            _flush(folder)
        draft = self.folder / f"{RECORD}.draft"
        draft.write_text(json.dumps({"version": 1, "files": names, "remove": stale}, indent=2))
        _flush(draft)
        draft.rename(self.folder / RECORD)
        _flush(self.folder)
        _flush(self.output_dir)
        recover(self.output_dir)
        return names

    def abandon(self) -> None:
        """Remove what was staged, unless it is committed; never raises."""
        if not (self.folder / RECORD).exists():
            shutil.rmtree(self.folder, ignore_errors=True)


def recover(output_dir: str | Path) -> bool:
    """Finish or undo a save that was cut off.

    A save that was committed is finished; one that was not leaves the folder as it was before.

    Args:
        output_dir: the folder of the saved model.

    Returns:
        Whether a committed save was finished.

    Raises:
        RequestError: the staging path is not a folder of ours.
    """
    output = Path(output_dir)
    staging = output / STAGING
    if staging.is_symlink() or (staging.exists() and not staging.is_dir()):
        raise RequestError(f"expected a folder, found something else, please remove: {staging}")
    record = staging / RECORD
    if not record.is_file():
        if staging.exists():
            shutil.rmtree(staging)
        return False
    plan = json.loads(record.read_text())
    names, stale = list(map(_inside, plan["files"])), list(map(_inside, plan["remove"]))
    gates = [name for name in names if _GATES.fullmatch(name.rpartition("/")[2])]
    # A gate that is no longer staged is the new one already.
    closing = [n for n in gates if (staging / n).exists()]
    closing += [n for n in stale if _GATES.fullmatch(n.rpartition("/")[2])]
    _remove(output, closing)
    _remove(output, [name for name in stale if name not in closing])
    _move(staging, output, [name for name in names if name not in gates])
    _move(staging, output, gates)
    templates = output / "additional_chat_templates"
    if templates.is_dir() and not any(templates.iterdir()):
        templates.rmdir()
    record.unlink()
    _flush(staging)
    shutil.rmtree(staging)
    return True


def _files(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def _inside(name: str) -> str:
    """Refuse a name that would lead out of the output folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise RequestError(f"the commit record names a file outside of the folder: {name}")
    return name


def _remove(output: Path, names: list[str]) -> None:
    for name in names:
        (output / name).unlink(missing_ok=True)
    for folder in {(output / name).parent for name in names}:
        if folder.is_dir():
            _flush(folder)


def _move(staging: Path, output: Path, names: list[str]) -> None:
    for name in names:
        if (staging / name).exists():
            (output / name).parent.mkdir(exist_ok=True)
            (staging / name).replace(output / name)
    for folder in {output, *((output / name).parent for name in names)}:
        if folder.is_dir():
            _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
