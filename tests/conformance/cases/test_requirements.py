"""Families, kinds of adapters and versions that need what is not installed are unavailable."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from saver_conformance.cases.adapter_kinds import adapter_kinds
from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.cases.families import families
from saver_conformance.cases.limit import Limit
from saver_conformance.cases.requirement import why_missing
from saver_conformance.errors import Unavailable
from saver_conformance.workload import require, version_compat
from saver_conformance.workload.version_compat import VersionLimit, why_unable

ABSENT = "a-distribution-that-nobody-has"
PACKAGING = version("packaging")


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        (ABSENT, f"x needs {ABSENT}, which is not installed"),
        (f"{ABSENT}>=2", f"x needs {ABSENT}>=2, which is not installed"),
        ("packaging>=9999", f"x needs packaging>=9999, found {PACKAGING}"),
        ("packaging<1", f"x needs packaging<1, found {PACKAGING}"),
        ("packaging", ""),
        ("packaging>=1", ""),
        (f"packaging=={PACKAGING}", ""),
        (f"{ABSENT}; python_version < '3'", ""),
    ],
)
def test_why_missing_names_what_is_needed_and_what_is_there(requirement: str, words: str) -> None:
    assert why_missing("x", ["packaging", requirement]) == words


def test_why_missing_pre_release_counts_as_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saver_conformance.cases.requirement.version", lambda name: "2.0.0.dev1")
    assert why_missing("x", ["library>=1.5"]) == ""
    monkeypatch.setattr("saver_conformance.cases.requirement.version", lambda name: "2.13.0+cpu")
    assert why_missing("x", ["torch>=2.13.0"]) == ""


@pytest.mark.parametrize("text", ["", "two words", "transformers=>5", ">=5"])
def test_requires_that_pip_would_not_read_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="family llama: expected a requirement"):
        replace(families()["llama"], requires=(text,))
    with pytest.raises(ValueError, match="adapter kind lora: expected a requirement"):
        replace(adapter_kinds()["lora"], requires=(text,))


def lack(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    """Make it look as if distributions were not installed."""

    def found(name: str) -> str:
        if name in absent:
            raise version_compat.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("saver_conformance.cases.requirement.version", found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "absent"),
    [
        (Case(Mode("full", "single"), architecture="llava"), "pillow"),
        (Case(Mode("qlora", "single"), adapter=Adapter()), "bitsandbytes"),
        (Case(Mode("full", "zero2"), world_size=2), "deepspeed"),
    ],
)
def test_require_library_missing_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, case: Case, absent: str
) -> None:
    require(case)
    lack(monkeypatch, absent)
    with pytest.raises(Unavailable, match=f"needs {absent}, which is not installed"):
        require(case)
    require(Case(Mode("full", "single")))  # what does not need it goes on


def test_require_kind_of_adapter_missing_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"lora": replace(adapter_kinds()["lora"], requires=(f"{ABSENT}>=2",))}
    monkeypatch.setattr("saver_conformance.cases.adapter_kinds.adapter_kinds", lambda: kinds)
    with pytest.raises(Unavailable, match=f"the adapter kind lora needs {ABSENT}>=2"):
        require(Case(Mode("lora", "single"), adapter=Adapter()))


def test_why_unable_holds_for_its_cases_and_older_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit("it cannot shard them", modes="*-zero3", when={"views": (True,)})
    case = Case(Mode("full", "zero3"), architecture="custom", views=True, world_size=2)
    for requirement, words in {
        "packaging>=9999": f"full-zero3 needs packaging>=9999, found {PACKAGING}: "
        "it cannot shard them",
        "packaging>=1": "",
    }.items():
        monkeypatch.setattr(version_compat, "LIMITS", (VersionLimit(requirement, limit),))
        assert why_unable(case) == words
        assert why_unable(replace(case, views=False)) == ""
        assert why_unable(replace(case, mode=Mode("full", "zero2"))) == ""


def test_why_unable_holds_beside_the_versions_that_need_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, limit = Case(Mode("full", "single")), Limit("it refuses older ones", modes="*")
    for beside, holds in {"packaging>=1": True, "packaging>=9999": False, ABSENT: False}.items():
        row = VersionLimit("packaging>=9999", limit, beside=beside)
        monkeypatch.setattr(version_compat, "LIMITS", (row,))
        assert bool(why_unable(case)) is holds
