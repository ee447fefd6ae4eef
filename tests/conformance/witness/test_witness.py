"""A training command, watched: what it trained against the folder that it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saver_conformance import cli
from saver_conformance.cases.families import families
from saver_conformance.commands import witness as witness_command
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import Tensor
from saver_conformance.witness.judge import FolderJudgement, describe, judge_folder
from saver_conformance.witness.record import (
    ERROR_FILE,
    PLAIN_FILE,
    TENSORS_FILE,
    NoRecordError,
    Record,
    read_record,
)
from saver_conformance.workload.hub_names import to_hub

ROOT = Path(__file__).parents[3]


def tensor(value: float, count: int = 4, dtype: str = "F32") -> Tensor:
    import struct

    data = struct.pack(f"<{count}f", *[value] * count)
    if dtype == "BF16":
        data = b"".join(data[at + 2 : at + 4] for at in range(0, len(data), 4))
    return Tensor(dtype, (count,), data)


TRAINED = {"model.a.weight": tensor(1.0), "model.b.weight": tensor(2.0, 8)}


def record(
    tensors: dict[str, Tensor] | None = None, adapter: dict[str, Any] | None = None, **plain: Any
) -> Record:
    found = TRAINED if tensors is None else tensors
    given = {
        "engine": "single",
        "ranks": 1,
        "steps": 3,
        "trainer": "transformers.trainer.Trainer",
        "model_type": "unheard-of",
        "trainable": sorted(found),
        "tied": {},
        "untrained": {},
        "config": {},
        "adapter": adapter,
    }
    return Record({**given, **plain}, found)


def judge(
    tmp_path: Path, seen: Record, saved: dict[str, Tensor], name: str = "model"
) -> FolderJudgement:
    output = tmp_path / "out"
    output.mkdir()
    write(output / f"{name}.safetensors", saved)
    if name == "adapter_model":
        (output / "adapter_config.json").write_text("{}")
    return judge_folder(seen, output, None, tmp_path / "scratch")


def test_judge_folder_equal_weights_lose_nothing(tmp_path: Path) -> None:
    found = judge(tmp_path, record(), TRAINED)
    assert found == FolderJudgement()
    assert list(describe(record(), tmp_path, found))[-1] == "the folder holds what was trained"


def test_judge_folder_no_weights_are_lost(tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    [lost] = judge_folder(record(), tmp_path / "out", None, tmp_path / "scratch").lost
    assert "no weights" in lost
    assert "checkpoint-3" in lost
    [lost] = judge_folder(record(), tmp_path / "nowhere", None, tmp_path / "other").lost
    assert "no such folder" in lost


def test_judge_folder_untrained_copy_is_named_so(tmp_path: Path) -> None:
    before = tensor(0.5)
    seen = record(untrained={"model.a.weight": hashlib.sha256(before.data).hexdigest()})
    [lost] = judge(tmp_path, seen, {**TRAINED, "model.a.weight": before}).lost
    assert lost == "1 tensor as before the training: model.a.weight"


@pytest.mark.parametrize(
    ("saved", "part"),
    [
        ({"model.a.weight": TRAINED["model.a.weight"]}, "1 trained tensor missing: model.b"),
        ({**TRAINED, "model.b.weight": tensor(3.0, 8)}, "8 of 8 elements"),
        ({**TRAINED, "model.b.weight": tensor(2.0, 4)}, "shape (8,) as (4,)"),
    ],
)
def test_judge_folder_lost_values(saved: dict[str, Tensor], part: str, tmp_path: Path) -> None:
    [lost] = judge(tmp_path, record(), saved).lost
    assert part in lost


def test_judge_folder_other_names_are_no_loss(tmp_path: Path) -> None:
    saved = {"other.a": TRAINED["model.a.weight"], "model.b.weight": TRAINED["model.b.weight"]}
    found = judge(tmp_path, record(), saved)
    assert (found.lost, found.unknown) == ((), ())
    assert "under other names" in found.notes[0]


def test_judge_folder_unknown_conversion_is_not_decided(tmp_path: Path) -> None:
    found = judge(
        tmp_path, record(), {"experts.0.weight": tensor(1.0, 2), **dict([*TRAINED.items()][1:])}
    )
    assert found.lost == ()
    assert "other names" in found.unknown[0]


def test_judge_folder_cast_is_a_note(tmp_path: Path) -> None:
    found = judge(tmp_path, record(), {**TRAINED, "model.a.weight": tensor(1.0, dtype="BF16")})
    assert (found.lost, found.unknown) == ((), ())
    assert "F32 as BF16" in found.notes[0]


def test_judge_folder_adapter_where_a_model_was_trained(tmp_path: Path) -> None:
    [lost] = judge(tmp_path, record(), TRAINED, "adapter_model").lost
    assert "only an adapter" in lost


ADAPTER = {"name": "default", "all": ["default", "reference"], "config": {"peft_type": "LORA"}}
IN_MEMORY = {
    "base_model.model.q.base_layer.weight": tensor(9.0),
    "base_model.model.q.lora_A.default.weight": tensor(1.0),
    "base_model.model.q.lora_A.reference.weight": tensor(5.0),
    "base_model.model.head.modules_to_save.default.weight": tensor(2.0),
}
ON_DISK = {
    "base_model.model.q.lora_A.weight": tensor(1.0),
    "base_model.model.head.weight": tensor(2.0),
}


def test_judge_folder_adapter_by_its_names_on_disk(tmp_path: Path) -> None:
    trainable = [name for name in IN_MEMORY if "default" in name]
    seen = record(IN_MEMORY, ADAPTER, trainable=trainable)
    assert seen.expected == ON_DISK
    assert judge(tmp_path, seen, ON_DISK, "adapter_model") == FolderJudgement()


def test_judge_folder_adapter_of_unknown_kind_is_not_decided(tmp_path: Path) -> None:
    seen = record(IN_MEMORY, {**ADAPTER, "config": {"peft_type": "UNHEARD_OF"}})
    found = judge(tmp_path, seen, ON_DISK, "adapter_model")
    assert found.lost == ()
    assert "UNHEARD_OF" in found.unknown[0]


def test_judge_folder_merged_model_without_its_base_is_not_decided(tmp_path: Path) -> None:
    seen = record(IN_MEMORY, ADAPTER, trainable=[name for name in IN_MEMORY if "default" in name])
    found = judge(tmp_path, seen, TRAINED)
    assert found.lost == ()
    assert "--base" in found.unknown[0]


def test_expected_known_family_has_names_of_the_hub() -> None:
    family = families()["mixtral"]
    fused = Tensor("F32", (2, 2, 1), tensor(1.0).data)
    memory = {"model.layers.0.mlp.experts.down_proj": fused}
    assert record(memory, model_type="mixtral").expected == to_hub(family, memory)


def test_read_record_says_why_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoRecordError, match="no training"):
        read_record(tmp_path)
    (tmp_path / ERROR_FILE.format(rank=0)).write_text("Traceback\nValueError: too large")
    with pytest.raises(NoRecordError, match="ValueError: too large"):
        read_record(tmp_path)


SCRIPT = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2,
)
model = LlamaForCausalLM(config)
model.save_pretrained("untrained")
rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 4
settings = TrainingArguments(
    "out", max_steps=2, use_cpu=True, report_to=[], save_strategy="no", learning_rate=0.1,
    disable_tqdm=True,
)
trainer = Trainer(model, settings, train_dataset=rows)
trainer.train()
if sys.argv[1] == "untrained":
    LlamaForCausalLM.from_pretrained("untrained").save_pretrained("out")
else:
    trainer.save_model()
"""


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [("trained", 0, "holds what was trained"), ("untrained", 1, "as before the training")],
)
def test_witness_own_script(how: str, code: int, text: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("open('own-sitecustomize', 'w').close()\n")
    command = [sys.executable, "-m", "saver_conformance", "witness", "--", sys.executable]
    done = subprocess.run(
        [*command, "train.py", how],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(own),
            "SAVER_CONFORMANCE_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert text in done.stdout
    assert "by single on 1 rank, 2 steps" in done.stdout
    assert (tmp_path / "own-sitecustomize").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize(("command_code", "expected"), [(0, 1), (7, 2)])
def test_witness_command_that_fails_is_not_judged(
    command_code: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: list[str], folder: Path, *, cpu: bool) -> int:
        write(folder / TENSORS_FILE, TRAINED)
        plain = {**record().plain, "output": str(tmp_path / "empty"), "base": ""}
        (folder / PLAIN_FILE).write_text(json.dumps(plain))
        return command_code

    monkeypatch.setattr(witness_command, "_run", run)
    with pytest.raises(SystemExit) as end:
        cli.main(["witness", "--", "train", "--", "--its-own-option"])
    assert end.value.code == expected
    assert "LOST: no weights" in capsys.readouterr().out


def test_witness_command_that_trains_nothing_is_not_judged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "saver_conformance", "witness", "--", sys.executable, "-c"]
    done = subprocess.run(
        [*command, "print('hello')"],
        cwd=tmp_path,
        env={**os.environ, "SAVER_CONFORMANCE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == ""
    assert "no training by transformers.Trainer" in done.stdout
