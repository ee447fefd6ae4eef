"""The audit of folders: whole ones are clean, and hostile ones end in findings."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import hostile_folder
from tests.fuzz.hostile_folder import INDEX, SHARDS, judge, restore, save_well, spoil

from saver_conformance import cli
from saver_conformance.folder import untrusted_json
from saver_conformance.folder.safetensors import write
from saver_conformance.folder_check import folder_checks
from saver_conformance.folder_check.audit import KEPT_FINDINGS, audit
from saver_conformance.observation.observation import Tensor
from saver_conformance.reports.audit_text import describe

ONE = {"a": Tensor("U8", (1,), b"1")}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "saved"
    save_well(path)
    return path


def broken(folder, **options):
    return {clause for clause, result in audit(folder, **options).clauses.items() if result.count}


def make_single(folder):
    for name in (*SHARDS, INDEX):
        (folder / name).unlink()
    write(folder / "model.safetensors", ONE)


def make_adapter(folder):
    for name in (*SHARDS, INDEX, "config.json", "generation_config.json"):
        (folder / name).unlink()
    write(folder / "adapter_model.safetensors", ONE)
    config = {"peft_type": "IA3", "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("make", [lambda folder: None, make_single, make_adapter])
def test_whole_folders_are_clean(folder, make):
    make(folder)
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "pytorch_model.bin").write_bytes(b"of somebody else")
    (folder / ".git").mkdir()
    found = audit(folder)
    assert found.is_clean
    assert {clause for clause, result in found.clauses.items() if result.blocked} == set()
    assert broken(folder) == set()


# What may be told of a folder, and is no defect of it.
REMARKS = {"ADAPTER-001", "FILES-004", "FILES-006", "META-002"}
# Notes for readers of other versions, which test_portable.py has one by one.
REMARKS |= {f"PORTABLE-00{number}" for number in (1, 3, 4, 5, 6, 7, 9)}


def test_every_clause_that_folders_are_checked_for_is_broken_by_one():
    files = (Path(__file__).with_name(name) for name in ("test_finds.py", "test_portable.py"))
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    shown = {clause for _, clauses in HOSTILE.values() for clause in clauses}
    shown |= set(re.findall(r'"([A-Z]+-\d{3})"', source))
    assert shown | REMARKS >= {check.clause for check in folder_checks()}


def test_a_pickle_is_told_and_not_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    found = audit(folder)
    assert found.is_clean
    assert "pickled weights, which are not read: pytorch_model.bin" in found.remarks[0].text
    assert any(line.startswith("note: ") for line in describe(found))


def header(folder, text, data=b"", length=None):
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    size = len(raw) if length is None else length
    (folder / SHARDS[0]).write_bytes(size.to_bytes(8, "little") + raw + data)


def entry(begin=0, end=4, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def change_index(folder, **changes):
    index = json.loads((folder / INDEX).read_text())
    for key, values in changes.items():
        index[key].update(values)
    (folder / INDEX).write_text(json.dumps(index))


def truncate(folder):
    os.truncate(folder / SHARDS[0], (folder / SHARDS[0]).stat().st_size - 1)


def link(folder, name, target):
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def pipe(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)


def make_odd_adapter(folder):
    make_adapter(folder)
    (folder / "config.json").write_text("{}")
    (folder / "adapter_config.json").write_text('{"peft_type": 7}')


def make_lora(folder, **config):
    """An adapter of a few thousand modules whose configuration is not to be trusted."""
    make_adapter(folder)
    matrices = {"lora_A": Tensor("U8", (2, 1), b"11"), "lora_B": Tensor("U8", (1, 2), b"11")}
    tensors = {
        f"base_model.model.layers.{number}.p.{part}.weight": tensor
        for number in range(2000)
        for part, tensor in matrices.items()
    }
    name = "base_model.model.layers.0.p.lora_magnitude_vector"
    write(folder / "adapter_model.safetensors", {**tensors, name: ONE["a"]})
    plain = {"peft_type": "LORA", "inference_mode": True, **config}
    (folder / "adapter_config.json").write_text(json.dumps(plain))


def make_llama(folder, **config):
    """A model whose configuration is not to be trusted, with one tensor of a known name."""
    write(folder / SHARDS[0], {"model.embed_tokens.weight": ONE["a"]})
    plain = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4}
    plain |= {"hidden_size": 2, "num_hidden_layers": 1, **config}
    (folder / "config.json").write_text(json.dumps(plain))


def write_unaligned(folder):
    header(folder, b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')


HOSTILE = {
    "empty": (lambda f: [path.unlink() for path in f.iterdir()], {"FILES-001", "META-001"}),
    "an index alone": (lambda f: [(f / name).unlink() for name in SHARDS], {"FILES-001"}),
    "truncated": (truncate, {"FORMAT-002"}),
    "shorter than a length": (lambda f: os.truncate(f / SHARDS[0], 7), {"FORMAT-001"}),
    "overlap": (
        lambda f: header(f, {"a": entry(), "b": entry(2, 6)}, bytes(6)),
        {"FORMAT-002"},
    ),
    "metadata of another library": (
        lambda f: header(f, {"__metadata__": {"format": "tf"}, "a": entry()}, bytes(4)),
        {"FORMAT-003"},
    ),
    "huge header": (lambda f: header(f, b"{}", length=2**63), {"FORMAT-001"}),
    "duplicate tensors": (lambda f: header(f, b'{"a":{},"a":{}}'), {"FORMAT-001"}),
    "duplicate keys": (
        lambda f: (f / INDEX).write_text('{"weight_map": {"a": "x", "a": "y"}}'),
        {"FORMAT-004"},
    ),
    "another duplicate": (lambda f: (f / "config.json").write_text('{"a":1,"a":2}'), {"META-001"}),
    "deep header": (lambda f: header(f, b'{"a":' + b"[" * 300_000), {"FORMAT-001"}),
    "deep dtype": (
        lambda f: header(f, b'{"a":{"dtype":' + b"[" * 900 + b"]" * 900 + b"}}"),
        {"FORMAT-001"},
    ),
    "deep name": (
        lambda f: (f / "config.json").write_text('{"_name_or_path":' + "[" * 900 + "]" * 900 + "}"),
        {"META-009"},
    ),
    "giant integer": (lambda f: header(f, b'{"a":' + b"9" * 10**6 + b"}"), {"FORMAT-001"}),
    "giant shape": (
        lambda f: header(f, {"a": entry(shape=[2**63] * 300_000)}, bytes(4)),
        {"FORMAT-002"},
    ),
    "giant shape of nothing": (
        lambda f: header(f, {"a": entry(0, 0, [2**63] * 300_000 + [0])}),
        {"FORMAT-010"},
    ),
    "giant float": (
        lambda f: (f / "config.json").write_text('{"a": 0.' + "1" * 10**6 + "}"),
        {"META-001"},
    ),
    "parent in the index": (
        lambda f: change_index(f, weight_map={"a": "../x.safetensors", "b": "/etc/passwd"}),
        {"FORMAT-004"},
    ),
    "unprintable names": (
        lambda f: change_index(f, weight_map={"\ud800\x1b[2J": "\udfff\n\x07"}),
        {"FORMAT-004"},
    ),
    "wrong totals": (
        lambda f: change_index(f, metadata={"total_size": 10**300, "total_parameters": "4"}),
        {"FORMAT-005", "FORMAT-006"},
    ),
    "one tensor twice": (lambda f: write(f / SHARDS[1], ONE), {"FORMAT-009"}),
    "unaligned": (write_unaligned, {"FORMAT-008"}),
    "link to the outside": (lambda f: link(f, SHARDS[0], "/etc/passwd"), {"FILES-011"}),
    "link to zeros": (lambda f: link(f, "config.json", "/dev/zero"), {"FILES-011", "META-001"}),
    "link to itself": (lambda f: link(f, INDEX, INDEX), {"FILES-011", "FORMAT-004"}),
    "pipe for weights": (lambda f: pipe(f, SHARDS[1]), {"FILES-011"}),
    "pipe for settings": (lambda f: pipe(f, "tokenizer.json"), {"FILES-011", "META-007"}),
    "folder for weights": (
        lambda f: ((f / SHARDS[0]).unlink(), (f / SHARDS[0]).mkdir()),
        {"FORMAT-001"},
    ),
    "index of nothing": (
        lambda f: [(f / name).unlink() for name in SHARDS] + [(f / INDEX).write_text("{}")],
        {"FILES-001"},
    ),
    "shard of a model that is wrapped": (
        lambda f: write(f / SHARDS[0], {"_orig_mod.a.b": ONE["a"]}),
        {"TENSOR-003"},
    ),
    "flat parameter": (
        lambda f: write(f / SHARDS[0], {"a": ONE["a"], "_flat_param_0": ONE["a"]}),
        {"TENSOR-002"},
    ),
    "two layouts": (lambda f: write(f / "model.safetensors", ONE), {"FILES-003"}),
    "half an adapter": (
        lambda f: (make_adapter(f), (f / "adapter_model.safetensors").unlink()),
        {"FILES-002"},
    ),
    "odd adapter": (make_odd_adapter, {"FILES-012", "ADAPTER-002", "ADAPTER-008"}),
    "adapter configuration": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        {"FILES-002", "ADAPTER-002"},
    ),
    "no generation": (lambda f: (f / "generation_config.json").write_text("["), {"META-006"}),
    "a name for a thousand modules": (
        lambda f: header(f, {".".join(["_orig_mod"] * 300_000): entry()}, bytes(4)),
        {"FORMAT-004"},
    ),
    "an endless expression for ranks": (
        lambda f: make_lora(f, rank_pattern={"(a+)+$": 1, "(.*)*x": 2}, r=2**70),
        {"ADAPTER-007"},
    ),
    "patterns, targets and modules without end": (
        lambda f: make_lora(
            f,
            rank_pattern={f"q{number}": number for number in range(200_000)},
            target_modules=[f"q{number}" for number in range(200_000)],
            modules_to_save=[f"q{number}" for number in range(200_000)],
        ),
        {"ADAPTER-004"},
    ),
    "layers without end": (
        lambda f: make_llama(f, num_hidden_layers=10**12),
        {"TENSOR-004"},
    ),
    "sizes that are none": (
        lambda f: make_llama(f, hidden_size=[], vocab_size=-1, architectures=[[]], model_type={}),
        {"FORMAT-004"},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_end_in_findings(folder, name):
    change, clauses = HOSTILE[name]
    change(folder)
    before = time.process_time()
    judge(folder, read_bytes=True)
    assert clauses <= broken(folder)
    assert time.process_time() - before < 5


def test_a_text_that_asks_for_too_many_values_is_refused(folder, monkeypatch):
    monkeypatch.setattr(untrusted_json, "MAX_VALUES", 100)
    (folder / "config.json").write_text(json.dumps({"a": [[]] * 60}))
    assert "META-001" in broken(folder)


def test_a_long_index_is_counted_and_not_kept(folder):
    lies = {f"t{number}": "nowhere" for number in range(10_000)}
    change_index(folder, weight_map=lies)
    result = audit(folder).clauses["FORMAT-004"]
    assert (result.count, len(result.findings)) == (10_000, KEPT_FINDINGS)
    assert len("\n".join(describe(audit(folder)))) < 3000


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "saved"
    save_well(path)
    return path, {item.name: item.read_bytes() for item in path.iterdir()}


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(min_size=20).map(lambda data: b"\2" + data)))
def test_any_bytes_end_in_a_report(spoiled, data):
    path, well = spoiled
    touched = spoil(path, data)
    try:
        judge(path, read_bytes=True)
    finally:
        restore(path, well, touched)


KEYS = [
    *("weight_map", "metadata", "a", "model", "vocab", "added_tokens", "vocab_size", "hidden_size"),
    *("model_type", "architectures", "num_hidden_layers", "quantization_config", "auto_map"),
    *("peft_type", "task_type", "r", "rank_pattern", "target_modules", "modules_to_save"),
    *("use_dora", "lora_bias", "num_virtual_tokens", "token_indices", "transformers_weights"),
]
WORDS = ["LORA", "PROMPT_TUNING", "llama", "LlamaForCausalLM", "SEQ_CLS", "a", "model.safetensors"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
        )
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(hostile_folder.NAMES[:-1]), JSON)
def test_any_json_ends_in_a_report(spoiled, name, plain):
    path, well = spoiled
    (path / name).write_text(json.dumps(plain))
    try:
        judge(path)
    finally:
        restore(path, well, {name})


LORA_NAMES = ["base_model.model.q.lora_A.weight", "q.lora_B.weight", "prompt_embeddings", "lora_A"]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8), st.sets(st.sampled_from(LORA_NAMES))
)
def test_any_configuration_of_an_adapter_or_a_model_ends_in_a_report(spoiled, plain, names):
    path, well = spoiled
    written = {"adapter_config.json", "adapter_model.safetensors", "config.json"}
    text = json.dumps(plain)
    (path / "adapter_config.json").write_text(text)
    (path / "config.json").write_text(text)
    write(path / "adapter_model.safetensors", dict.fromkeys(sorted(names), ONE["a"]))
    try:
        judge(path)
    finally:
        restore(path, well, written)


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return end.value.code


def test_exit_codes(folder, capsys):
    assert call("check", str(folder)) == 0
    shown = capsys.readouterr().out
    assert "no defects found in the structure" in shown
    assert "conforms" not in shown
    truncate(folder)
    assert call("check", str(folder), "--bytes") == 1
    shown = capsys.readouterr().out
    assert "FORMAT-002 (MUST)" in shown
    assert "sha256 " in shown
    assert call("check", str(folder / "nowhere")) == 3
    assert call("check", str(folder / "config.json")) == 3
    assert call("check") == 3


def test_a_deviation_is_told_and_is_no_defect(folder, capsys):
    (folder / "config.json").write_text('{"_name_or_path": "/home/me"}')
    assert call("check", str(folder)) == 0
    assert "META-009 (SHOULD)" in capsys.readouterr().out


LARGE = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from saver_conformance import cli
started = time.process_time()
try:
    cli.main(["check", sys.argv[1]])
finally:
    # The peak that getrusage gives is at least that of the process that started this one.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    kibibytes = int(status["VmHWM"].split()[0])
    print("torch" in sys.modules, kibibytes >> 10, time.process_time() - started)
"""


def test_many_gigabytes_take_no_time_no_memory_and_no_torch(folder):
    make_single(folder)
    size = 64 << 30  # sparse: reading it would take a minute
    text = json.dumps({"__metadata__": {"format": "pt"}, "a": entry(0, size, (size,), "U8")})
    text += " " * (-len(text) % 8)
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    os.truncate(path, path.stat().st_size + size)
    command = [sys.executable, "-c", LARGE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    torch, mebibytes, seconds = done.stdout.splitlines()[-1].split()
    assert torch == "False"
    assert int(mebibytes) < 300
    assert float(seconds) < 1
