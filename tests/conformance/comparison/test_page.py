"""The outputs in docs/guides/compare-folders.md are what the commands print.

``python -m tests.conformance.comparison.test_page`` writes them again.
"""

import contextlib
import io
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.helpers import saved_folders, trained_folders
from tests.helpers.saved_folders import MODELS, change_tensors

from saver_conformance.cli import main

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "compare-folders.md"
BLOCK = re.compile(r"```\n\$ saver-conformance ([^\n]*)\n(.*?)\nexit \d\n```", re.DOTALL)
LORA = {"target_modules": ["q_proj"], "target_parameters": saved_folders.EXPERTS}
LAYER = "model.layers.1.self_attn"


def trained(tensors):
    """One layer was trained, and one of its weights has the rows of rank 0 twice."""
    torch.manual_seed(2)
    for name, std in (("q", 0.01), ("k", 0.01), ("v", 0.01), ("o", 0.02)):
        weight = tensors[f"{LAYER}.{name}_proj.weight"]
        weight += torch.randn(weight.shape).to(weight.dtype) * std
    whole = tensors[f"{LAYER}.o_proj.weight"]
    whole[16:] = whole[:16]
    return tensors


def one_element(tensors):
    tensors["model.norm.weight"][3] += 0.5
    return tensors


def make_folders():
    """Make the folders that the page compares, here."""
    model, dtype = MODELS["mixtral"], torch.bfloat16
    base, adapter = Path("base"), Path("adapter")
    trained_folders.save_base(base, model, dtype)
    for name, change in (("trained", trained), ("other", one_element)):
        trained_folders.save_base(Path(name), model, dtype)
        change_tensors(Path(name) / "model.safetensors", change)
    trained_folders.set_config(Path("other"), rms_norm_eps=0.25)
    trained_folders.save_adapter(adapter, model, dtype, **LORA)
    scale = trained_folders.scale_by
    for name, factor in (
        ("merged", None),
        ("merged-twice", scale(2)),
        ("merged-without-experts", scale(0, lambda module: "experts" in module)),
    ):
        trained_folders.merge(Path(name), adapter, model, dtype, factor)
    torch.manual_seed(0)
    model().to(dtype).save_pretrained("shards", max_shard_size="10KB")
    shutil.copytree(base, "pickle", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(base / "model.safetensors"), Path("pickle") / "pytorch_model.bin")


def output(command):
    """What a command prints, and how it ends."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main(command.split())
        except SystemExit as end:
            return f"$ saver-conformance {command}\n{text.getvalue().rstrip()}\nexit {end.code}"
    raise AssertionError("a command ends with its code")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with contextlib.chdir(folder):
        make_folders()
    return folder


@pytest.mark.parametrize("command", [match[1] for match in BLOCK.finditer(PAGE.read_text())])
def test_page_shows_what_the_command_prints(command, folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert f"```\n{output(command)}\n```" in PAGE.read_text()


def test_page_shows_each_question_with_an_output():
    commands = [match[1] for match in BLOCK.finditer(PAGE.read_text())]
    assert {command.split()[0] for command in commands} == {"check", "diff"}
    assert len(commands) >= 9


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        make_folders()
        PAGE.write_text(BLOCK.sub(lambda match: f"```\n{output(match[1])}\n```", PAGE.read_text()))
