"""The pages of the site: their links, their place in the navigation, and what they promise."""

from __future__ import annotations

import argparse
import logging
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.docs_site import FROM_OUTSIDE, on_page_content, on_page_markdown, resolve

from saver_conformance.reports.advice import ADVICE
from saver_conformance.spec import SPEC

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REPOSITORY = "https://example.org/owner/name"


class _Loader(yaml.SafeLoader):
    """Reads MkDocs' configuration, whose tags name what MkDocs makes of them."""


_LOADER_TAG = "!!python".replace("!!", "tag:yaml.org,2002:")
_Loader.add_multi_constructor(_LOADER_TAG, lambda *_: None)
_Loader.add_multi_constructor("!ENV", lambda *_: None)


def navigation() -> set[str]:
    found: set[str] = set()

    def walk(item: Any) -> None:
        if isinstance(item, str):
            found.add(item)
        for child in item.values() if isinstance(item, dict) else item:
            if not isinstance(item, str):
                walk(child)

    walk(yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["nav"])
    return found


def test_navigation_has_every_page_once_but_those_that_are_left_out_by_name() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    patterns = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["not_in_nav"].split()
    left_out = {page for page in pages if any(fnmatchcase(page, each) for each in patterns)}
    assert {Path(page).parent for page in left_out} == {Path("upstream")}
    assert navigation() == (pages - left_out) | set(FROM_OUTSIDE)


@pytest.mark.parametrize(
    ("page", "target", "expected"),
    [
        ("guides/ci.md", "pytest.md", "[x](pytest.md)"),
        ("guides/ci.md", "pytest.md#part", "[x](pytest.md#part)"),
        ("guides/ci.md", "#waivers", "[x](#waivers)"),
        ("guides/ci.md", "https://example.org/a.md", "[x](https://example.org/a.md)"),
        (
            "guides/limits.md",
            "../../conformance/saver_conformance/spec.md#files",
            "[x](../reference/spec.md#files)",
        ),
        ("project/contributing.md", "docs/architecture.md", "[x](../architecture.md)"),
        ("guides/ci.md", "../../noxfile.py", f"[x]({REPOSITORY}/blob/main/noxfile.py)"),
        ("guides/launchers.md", "../../examples", f"[x]({REPOSITORY}/tree/main/examples)"),
    ],
)
def test_resolve_a_link_leads_to_its_place(page: str, target: str, expected: str) -> None:
    assert resolve("x", target, page, REPOSITORY) == expected


def test_resolve_without_a_repository_a_source_is_plain_text() -> None:
    assert resolve("x", "../../noxfile.py", "guides/ci.md", None) == "x"


@pytest.mark.parametrize("target", ["gone.md", "../../gone.py"])
def test_resolve_a_link_to_nowhere_is_a_warning(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mkdocs.hooks.docs_site"):
        resolve("x", target, "guides/ci.md", None)
    assert target in caplog.text


def test_on_page_markdown_leaves_code_alone() -> None:
    page = argparse.Namespace(file=argparse.Namespace(src_uri="guides/ci.md"))
    config = argparse.Namespace(repo_url=None)
    text = "[a](../../noxfile.py)\n```\n[b](../../noxfile.py)\n```\n"
    assert on_page_markdown(text, page, config, None) == "a\n```\n[b](../../noxfile.py)\n```\n"


def test_on_page_content_takes_roles_out() -> None:
    assert on_page_content("see :func:<code>plan</code>") == "see <code>plan</code>"


def test_readme_has_no_relative_links() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    assert all(target.startswith("https://") for target in targets)


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_pages_outside_docs_have_links_that_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text())
    assert all(t.startswith("https://") or (ROOT / t).exists() for t in targets)


def test_every_clause_has_advice() -> None:
    assert list(ADVICE) == list(SPEC)
    assert all(len(paragraph.split()) > 8 for paragraph in ADVICE.values())
    assert not any("](" in paragraph or "#" in paragraph for paragraph in ADVICE.values())


def test_architecture_names_classes_and_rooms_that_exist() -> None:
    page = (DOCS / "architecture.md").read_text()
    way = page.partition("## From a rank's memory")[2].partition("\n## ")[0]
    picture = (DOCS / "assets" / "tensor-path.svg").read_text()
    saver = ROOT / "reference" / "canonical_saver"
    source = "".join(path.read_text() for path in saver.rglob("*.py"))
    classes = re.findall(r"^- `(\w+)`:", way, re.MULTILINE)
    assert len(classes) == 9
    assert all(f"\nclass {name}" in source and name in picture for name in classes)
    modules = re.findall(r"[a-z_]+(?:/[a-z_0-9]+)*\.py", re.sub("<style>.*</style>", "", picture))
    assert modules
    assert all((saver / module).exists() for module in modules)
    rooms = page.partition("## The rooms of the saver")[2].partition("## Glossary")[0]
    first, _, second = rooms.partition("## The rooms of the suite")
    for package, table in ((saver, first), (ROOT / "conformance/saver_conformance", second)):
        cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
        named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
        assert named
        assert all((package / name).exists() for name in named)
        rooms_there = {path.name for path in package.iterdir() if path.is_dir()} - {"__pycache__"}
        assert rooms_there <= {name.partition("/")[0] for name in named}


def test_glossary_is_in_order_and_has_each_word_once() -> None:
    page = (DOCS / "architecture.md").read_text().partition("## Glossary")[2]
    words = [row.split("|")[1].strip() for row in page.splitlines() if row.startswith("| ")][1:]
    assert words == sorted(set(words), key=str.lower)


def test_command_lines_page_has_every_option() -> None:
    from saver_conformance.cli import make_parser

    page = (DOCS / "reference" / "command-lines.md").read_text()
    assert sorted(_options(make_parser()) - set(re.findall(r"--[a-z-]+", page))) == []
    (commands,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    assert [name for name in commands.choices if f"saver-conformance {name}" not in page] == []


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found.update(o for o in action.option_strings if o.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found |= _options(child)
    return found - {"--help"}
