"""Where savers with a name are found: a folder, a setting, entry points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance.claims.known_savers import ENTRY_POINTS, find_claim, list_savers
from saver_conformance.errors import UnknownSaverError
from saver_conformance.reports.report_json import to_plain

SAVER = """
from saver_conformance.claims import claims as of_the_suite
import no_such_library
@of_the_suite({name!r}, modes=["full-*"])
def save(cfg, trainer, model): ...
"""
FOREIGN = """
from somewhere import claims
@claims("mine", colour="red")
def save(cfg, trainer, model): ...
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def configure(folder: Path, value: str) -> None:
    write(folder / "pyproject.toml", f"[tool.saver_conformance]\nsavers-dir = {value}\n")


def install(site: Path, name: str, address: str) -> None:
    """A project that registers a saver, as an installer leaves it."""
    write(site / f"{name}-1.0.dist-info" / "METADATA", f"Name: {name}\nVersion: 1.0\n")
    points = f"[{ENTRY_POINTS}]\n{name} = {address}\n"
    write(site / f"{name}-1.0.dist-info" / "entry_points.txt", points)


def test_list_savers_without_a_setting_knows_no_folder(tmp_path: Path) -> None:
    for place in ("fixtures/savers", "savers", "fixtures"):
        write(tmp_path / place / "mine.py", SAVER.format(name="mine"))
    assert [claim for claim in list_savers(tmp_path) if claim.name == "mine"] == []


@pytest.mark.parametrize("place", ["savers", "deep/er", "deep"])
def test_find_claim_by_name_in_the_folder_that_is_set(tmp_path: Path, place: str) -> None:
    write(tmp_path / "deep" / "er" / "one.py", SAVER.format(name="mine"))
    write(tmp_path / "savers" / "one.py", SAVER.format(name="mine"))
    configure(tmp_path, f'"{place}"')
    claim = find_claim("mine", tmp_path)
    assert claim.address == f"{'deep.er' if place[0] == 'd' else 'savers'}.one:save"
    assert claim.modes == ("full-*",)


def test_find_claim_option_goes_before_the_setting(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.py", SAVER.format(name="mine"))
    write(tmp_path / "two" / "a.py", SAVER.format(name="mine"))
    configure(tmp_path, '"one"')
    assert find_claim("mine", tmp_path, Path("two")).address == "two.a:save"


def test_find_claim_by_name_of_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    write(site / "installed_saving" / "__init__.py", "raise ImportError('no torch here')")
    write(site / "installed_saving" / "of" / "full.py", SAVER.format(name="inner"))
    install(site, "outer", "installed_saving.of.full:save")
    monkeypatch.syspath_prepend(site)
    claim = find_claim("outer", tmp_path)
    assert (claim.address, claim.name) == ("installed_saving.of.full:save", "outer")
    assert claim.modes == ("full-*",)
    assert "outer  installed_saving.of.full:save" in [item.line for item in list_savers(tmp_path)]


def test_find_claim_of_two_savers_with_one_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mine", "other.saving:save")
    monkeypatch.syspath_prepend(tmp_path / "site")
    write(tmp_path / "savers" / "a.py", SAVER.format(name="mine"))
    with pytest.raises(UnknownSaverError, match=r"of savers\.a:save and of other\.sav"):
        find_claim("mine", tmp_path, Path("savers"))


def test_find_claim_of_an_address_reads_what_its_source_claims(tmp_path: Path) -> None:
    write(tmp_path / "anywhere" / "saving.py", SAVER.format(name="mine"))
    assert find_claim("anywhere.saving:save", tmp_path).modes == ("full-*",)


@pytest.mark.parametrize("text", [FOREIGN, "save = None\n", "from .x import save\n"])
def test_find_claim_of_an_address_without_our_claim_claims_everything(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path / "saving.py", text)
    assert find_claim("saving:save", tmp_path).modes == ("*",)
    assert find_claim("no.such.module:save", tmp_path).modes == ("*",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "expected a folder, found 3"),
        ('["a"]', "expected a folder"),
        ('"none"', "none does not exist"),
        ('"a', "cannot be read"),
        ('".."', "cannot be imported"),
        ('"broken"', r"odd\.py cannot be read as Python"),
    ],
)
def test_find_claim_with_a_wrong_setting_says_what_is_wrong(
    tmp_path: Path, value: str, message: str
) -> None:
    project = tmp_path / "project"
    write(project / "broken" / "odd.py", "def save(")
    configure(project, value)
    with pytest.raises(UnknownSaverError, match=message):
        find_claim("mine", project)


def test_find_claim_of_an_address_needs_no_right_setting(tmp_path: Path) -> None:
    configure(tmp_path, "3")
    assert find_claim("a.b:save", tmp_path).address == "a.b:save"


def test_to_plain_replays_a_saver_with_a_name_by_its_address() -> None:
    verdict = make_verdict("mine", [make_record(CLAIMED[0], broken=("FILES-005",))])
    assert "--saver mine" in str(to_plain(verdict))
    plain = to_plain(replace(verdict, address="a.b:save"))
    assert plain["saver"] == "mine"
    assert "--saver mine" not in str(plain)
    assert "replay - --saver a.b:save" in str(plain)
