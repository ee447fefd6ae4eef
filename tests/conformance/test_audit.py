"""The audit of folders: whole ones are clean, and hostile ones end in findings."""

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import hostile_folder
from tests.fuzz.hostile_folder import INDEX, SHARDS, judge, restore, save_well, spoil

from saver_conformance import cli
from saver_conformance.audit import KEPT_FINDINGS, audit
from saver_conformance.audit_text import describe
from saver_conformance.checks import checks
from saver_conformance.disk import untrusted_json
from saver_conformance.disk.safetensors import write
from saver_conformance.observation import Tensor

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


def test_every_structural_clause_can_be_broken_by_a_folder(folder):
    seen = set()
    for name in HOSTILE:
        path = folder.with_name(name)
        save_well(path)
        HOSTILE[name][0](path)
        seen |= broken(path)
    assert seen == {check.clause for check in checks() if check.structural}


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
    "pickle": (
        lambda f: (f / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR."),
        {"FILES-004"},
    ),
    "two layouts": (lambda f: write(f / "model.safetensors", ONE), {"FILES-003"}),
    "half an adapter": (
        lambda f: (make_adapter(f), (f / "adapter_model.safetensors").unlink()),
        {"FILES-002"},
    ),
    "odd adapter": (make_odd_adapter, {"FILES-012", "ADAPTER-002", "ADAPTER-008"}),
    "adapter configuration": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        {"FILES-006"},
    ),
    "no generation": (lambda f: (f / "generation_config.json").unlink(), {"META-006"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_end_in_findings(folder, name):
    change, clauses = HOSTILE[name]
    change(folder)
    before = time.monotonic()
    judge(folder, read_bytes=True)
    assert clauses <= broken(folder)
    assert time.monotonic() - before < 5


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["weight_map", "metadata", "a", "model", "vocab", "added_tokens"]),
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
started = time.monotonic()
try:
    cli.main(["check", sys.argv[1]])
finally:
    # The peak that getrusage gives is at least that of the process that started this one.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    kibibytes = int(status["VmHWM"].split()[0])
    print("torch" in sys.modules, kibibytes >> 10, time.monotonic() - started)
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
