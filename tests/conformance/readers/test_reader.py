"""A reader is one file, whose data are read without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.readers import registry
from saver_conformance.readers.reader import ReaderError, read_reader
from saver_conformance.readers.registry import choose, find_readers

PLAIN = Path(__file__).parents[2] / "helpers/plain_reader.py"
HEAD = """# /// script
# dependencies = ["a==1"]
#
# [tool.saver-conformance]
# name = "own"
# text = "one"
# gives = ["tokens"]
# ///
raise SystemExit("it was run")
"""


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_shipped_readers_have_data_that_can_be_read() -> None:
    found = find_readers()
    names = {"transformers", "transformers-4", "llama.cpp", "mlx-lm", "mistralrs", "keras-hub"}
    names |= {"vllm", "tokenizers", "huggingface.js", "fastsafetensors"}
    assert names <= set(found)
    assert next(iter(found)) == "transformers"
    assert all(reader.has_environment and reader.gives for reader in found.values())


def test_reader_is_one_file_that_is_not_run_to_be_known(tmp_path: Path) -> None:
    reader = read_reader(write(tmp_path, HEAD))
    assert (reader.name, reader.dependencies, reader.gives) == ("own", ("a==1",), ("tokens",))


def test_reader_in_javascript_has_the_same_data(tmp_path: Path) -> None:
    text = HEAD.replace("# ", "// ").replace("#\n", "//\n")
    assert read_reader(write(tmp_path, text, "own.mjs")).name == "own"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("# /// script", "# nothing", "expected inline metadata"),
        ('name = "own"', 'name = "own', "no TOML"),
        ("[tool.saver-conformance]", "[tool.other]", "expected a table"),
        ('# name = "own"\n', "", "lacks name"),
        ('["tokens"]', '["smells"]', "'smells'"),
        ('text = "one"', 'text = "one"\n# colour = 1', "no field colour"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ReaderError, match=told):
        read_reader(write(tmp_path, HEAD.replace(old, new)))


def test_a_program_is_chosen_by_its_path(tmp_path: Path) -> None:
    assert [reader.name for reader in choose([str(PLAIN), "tokenizers"])] == ["plain", "tokenizers"]


def test_groups_choose_the_fast_ones_or_all() -> None:
    fast = choose(["fast"])
    assert all(reader.fast for reader in fast)
    assert set(fast) < set(choose(["all"]))


def test_an_unknown_name_is_told_with_what_there_is() -> None:
    with pytest.raises(ReaderError, match="no reader is called 'nobody'; there are transformers"):
        choose(["nobody"])


def test_two_readers_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, HEAD)
    write(tmp_path, HEAD, "other.py")
    with pytest.raises(ReaderError, match="registered already"):
        find_readers(tmp_path)


def test_an_installed_package_adds_its_reader_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, HEAD, "own_reader_of_a_package.py")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Point:
        name, module = "own", "own_reader_of_a_package"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point])
    assert "own" in find_readers()
