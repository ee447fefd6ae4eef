"""The command ``witness``: runs a training command, and judges the folder that it leaves."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saver_conformance.environments.worker import make_worker
from saver_conformance.folder_check.audit import audit
from saver_conformance.reports.audit_text import describe as describe_audit
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, HARNESS_FAILED, INCONCLUSIVE
from saver_conformance.witness.hook import CPU, FOLDER
from saver_conformance.witness.judge import FolderJudgement, describe, judge_folder
from saver_conformance.witness.record import NoRecordError, read_record

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

_SITE = """import importlib.machinery
import importlib.util
import sys

sys.path.remove({folder!r})
from saver_conformance.witness import hook

hook.install()
own = importlib.machinery.PathFinder.find_spec("sitecustomize")
if own is not None and own.loader is not None:
    sys.modules["sitecustomize"] = importlib.util.module_from_spec(own)
    own.loader.exec_module(sys.modules["sitecustomize"])
"""
"""What Python runs when it starts; then the ``sitecustomize`` of the environment, if it has one."""


def add_command(commands: Commands) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser(
        "witness",
        help="run a framework's own training command, and judge the folder that it leaves",
        description="The weights are recorded when transformers.Trainer.train returns, before "
        "anything is saved; then the command goes on. Use a tiny model: it is gathered whole.",
        epilog="Exit codes: 0 the folder holds what was trained; 1 something is lost, or a "
        "structural MUST is broken; 2 it could not be decided; 3 the command could not be run.\n\n"
        "Example:\n  saver-conformance witness -- python train.py",
        usage="%(prog)s [--output DIR] [--base DIR] [--cpu] -- COMMAND...",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="the folder to judge (default: the trainer's)"
    )
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="the model that an adapter was merged into"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="let FSDP and DeepSpeed train without an accelerator, as the suite does",
    )
    parser.add_argument("words_of_command", nargs="+", metavar="COMMAND")
    parser.set_defaults(command=_witness)


def _witness(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            code = _run(given.words_of_command, folder, cpu=given.cpu)
        except OSError as error:
            print(f"saver-conformance: the command could not be run: {error}")
            return HARNESS_FAILED
        try:
            record = read_record(folder)
        except NoRecordError as error:
            print(f"saver-conformance: {error} (the command ended with exit code {code})")
            return INCONCLUSIVE
        output = given.output or Path(record.plain["output"])
        base = given.base or Path(record.plain["base"] or "/nowhere")
        found = judge_folder(record, output, base, folder)
        print(*describe(record, output, found), sep="\n")
        if code:
            # Whatever it was that failed, nobody claims that the model was saved.
            print(f"the command ended with exit code {code} after the training: no verdict")
            return INCONCLUSIVE
        return _conclude(found, output)


def _conclude(found: FolderJudgement, output: Path) -> int:
    is_clean = True
    if output.is_dir() and not found.lost:
        structure = audit(output)
        is_clean = structure.is_clean
        if not is_clean:
            print(*describe_audit(structure), sep="\n")
    if found.lost or not is_clean:
        return BROKEN
    return INCONCLUSIVE if found.unknown else CONFORMS


def _run(command: list[str], folder: Path, *, cpu: bool) -> int:
    """Run the command with the hook in every Python that it starts."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE.format(folder=str(site)))
    path = [str(site), str(make_worker() / "suite")]
    if before := os.environ.get("PYTHONPATH"):
        path.append(before)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), FOLDER: str(folder)}
    if cpu:
        environment |= {CPU: "1", "ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu"}
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
