"""The reading path is what a plain save goes through, no less and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.house.reading_path import reading_path

SAVE = """
import json, sys
from transformers import LlamaConfig, LlamaForCausalLM
from canonical_saver import save_trained_model
config = LlamaConfig(
    vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1,
)
cfg = {"output_dir": sys.argv[1], "save_portable": False}
save_trained_model(cfg, None, LlamaForCausalLM(config))
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "canonical_saver"]))
"""


OF_MOUNTS = {"canonical_saver.file_growth"}
"""Imported too where the file system of the temporary folder cannot reserve blocks."""


def test_reading_path_is_what_a_plain_save_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded - OF_MOUNTS == set(reading_path())
