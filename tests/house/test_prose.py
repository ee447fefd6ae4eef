"""The words of the docs, and the names that are no more."""

from __future__ import annotations

import pytest
from fixtures import prose


def test_docs_use_the_projects_words() -> None:
    hits = [str(hit) for hit in prose.check(prose.tracked())]
    assert hits == []


def test_find_a_word_of_the_list_names_its_line_and_another_word() -> None:
    (hit,) = prose.find("One.\nThe saver goes on.\n", prose.read_words("docs"), "page.md")
    assert (hit.file, hit.line, hit.word) == ("page.md", 2, "goes on")
    assert "continues" in hit.instead


@pytest.mark.parametrize("text", ["foretold", "storyteller", "inn-kept", "undisturbed"])
def test_find_a_part_of_another_word_is_no_hit(text: str) -> None:
    words = prose.read_words("docs") + prose.read_words("names")
    assert list(prose.find(text, words)) == []


def test_without_code_keeps_lines_and_blanks_code_and_targets() -> None:
    page = "told\n```\nsaid\n```\n`kept` and [seen](told.md)\n"
    prose_only = prose.without_code(page)
    assert prose_only.count("\n") == page.count("\n")
    words = [hit.word for hit in prose.find(prose_only, prose.read_words("docs"))]
    assert sorted(words) == ["seen", "told"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("README.md", True),
        ("docs/guides/ci.md", True),
        ("conformance/saver_conformance/spec.md", True),
        ("CHANGELOG.md", False),
        ("docs/clauses/FILES.md", False),
        ("docs/records/explore.md", False),
        ("fixtures/savers/README.md", False),
        ("noxfile.py", False),
    ],
)
def test_is_prose_of_what_people_write_for_readers(file: str, expected: bool) -> None:
    assert prose.is_prose(file) is expected


def test_check_an_old_name_in_code_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "module.py").write_text("# the oldname save\n")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "WORDS", tmp_path / "prose.toml")
    (tmp_path / "prose.toml").write_text('[docs]\n[code]\n[names]\n"oldnames?" = "new name"\n')
    assert [hit.word for hit in prose.check(["module.py"])] == ["oldname"]


def test_comments_are_docstrings_and_comments_where_they_are() -> None:
    source = (
        '"""One."""\n\nword = "two"  # three\n\n\ndef f():\n    """Four.\n\n    Five.\n    """\n'
    )
    kept = prose.comments(source)
    assert kept.split() == ['"""One."""', "#", "three", '"""Four.', "Five.", '"""']
    assert kept.splitlines()[8].strip() == "Five."


def test_check_a_word_in_a_docstring_of_a_package_is_found(tmp_path, monkeypatch) -> None:
    module = tmp_path / "reference" / "module.py"
    module.parent.mkdir()
    module.write_text('"""Bytes in stretches."""\nstretches = 1\n')
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (hit,) = prose.check(["reference/module.py"])
    assert (hit.line, hit.word) == (1, "stretches")
