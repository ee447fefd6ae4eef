"""What is made of reports: every fact is there, every link leads somewhere, no text is markup."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft202012Validator
from tests.helpers.verdicts import (
    CHECKED,
    CLAIMED,
    EVIL,
    NOT_PLANNED,
    made_verdicts,
    make_record,
    make_verdict,
    read_report,
    write_reports,
)

from saver_conformance import cli
from saver_conformance.errors import ResultError
from saver_conformance.reports.html import render_site
from saver_conformance.reports.markdown import block, code
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.result import Result, find_reports, read_results, schema
from saver_conformance.reports.site import TABLES
from saver_conformance.reports.status import WORDS, sentence
from saver_conformance.reports.view import (
    FOLDERS,
    savers_by_areas,
    savers_by_modes,
    view_subject,
    view_subjects,
)
from saver_conformance.spec import SPEC

VOID = {"meta", "link", "input", "img", "br", "wbr", "hr"}
CODES = {
    "conforms": 0,
    "broken": 1,
    "slightly broken": 1,
    "waived": 0,
    "wrong waiver": 1,
    "inconclusive": 2,
    "harness": 3,
    "partial": 0,
    "nothing": 2,
    "evil": 1,
}


class Page(HTMLParser):
    """The elements of a page, and the text inside each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text_of: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self._raw = False
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), tag
        self.elements.append((tag, attributes))
        self._raw = tag in ("style", "script")
        if tag not in VOID:
            self._open.append(attributes.get("id") or "")
            if self._open[-1]:
                assert self._open[-1] not in self.text_of, "an id stands twice"
                self.text_of[self._open[-1]] = ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = False
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._raw:
            return
        self.text += data
        for name in self._open:
            if name:
                self.text_of[name] += data

    def values(self, attribute: str) -> Iterator[str]:
        for _, attributes in self.elements:
            if attribute in attributes:
                yield attributes[attribute] or ""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_reports(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def results(folders: dict[str, Path]) -> tuple[Result, ...]:
    return read_results(folders.values())


@pytest.fixture(scope="module")
def site(results: tuple[Result, ...]) -> Page:
    return Page(render_site(results))


def pages(folders: dict[str, Path]) -> Iterator[Page]:
    for folder in folders.values():
        yield Page((folder / "index.html").read_text(encoding="utf-8"))


# The report and its schema


@pytest.mark.slow
def test_every_report_keeps_to_the_schema(folders: dict[str, Path]) -> None:
    Draft202012Validator.check_schema(schema())
    for name, folder in folders.items():
        report = read_report(folder)
        assert list(Draft202012Validator(schema()).iter_errors(report)) == []
        assert report["exit_code"] == CODES[name]


ADDED = (
    "failures",
    "unchanged",
    "interrupted",
    "ended",
    "place",
    "spec_version",
    "case_set",
    "shard",
    "empty_folder",
    "readings",
)
"""Keys that reports of earlier versions of the suite do not have."""


@pytest.mark.slow
def test_the_schema_wants_every_key_and_no_other(folders: dict[str, Path]) -> None:
    validator = Draft202012Validator(schema())
    report = read_report(folders["broken"])
    parts: list[dict[str, object]] = [report, report["totals"], report["environment"]]  # type: ignore[list-item]
    row = next(row for row in report["clauses"] if row["findings"])  # type: ignore[attr-defined]
    parts += [row, row["findings"][0], report["causes"][0], report["spec"]["FILES-001"]]  # type: ignore[index]
    for part in parts:
        for key in list(part):
            value = part.pop(key)
            assert validator.is_valid(report) == (key in ADDED), key
            part[key] = value
        part["new"] = 1
        assert not validator.is_valid(report)
        del part["new"]
    assert validator.is_valid(report)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (b"{", "is not JSON"),
        (b"[]", "expected an object"),
        (
            b'{"version": 1}',
            "expected a report of version 2, found version 1; judge the saver again",
        ),
        (b'{"version": 2}', "is a required property"),
        (lambda report: report["clauses"][0].update(status="great"), "'great' is not one of"),
        (lambda report: report["clauses"][0].update(mode="full-ddp\n"), "does not match"),
        (lambda report: report["clauses"][0].update(clause="FILES-999"), "does not stand in"),
        (lambda report: report["causes"][0].update(clause="FILES-999"), "does not stand in"),
        (lambda report: report["totals"].update(executed=-1), "minimum"),
        (lambda report: report.update(saver=["x"]), "is not of type 'string'"),
    ],
)
def test_a_file_that_is_no_report(
    change: object,
    told: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "report.json"
    if callable(change):
        report = read_report(folders["broken"])
        change(report)
        change = json.dumps(report).encode()
    assert isinstance(change, bytes)
    path.write_bytes(change)
    with pytest.raises(SystemExit) as end:
        cli.main(["site", str(path), "--out", str(tmp_path / "out")])
    assert end.value.code == 3
    shown = capsys.readouterr().err
    assert told in shown
    assert str(path) in shown
    assert "Traceback" not in shown
    assert len(shown) < 1000
    assert not (tmp_path / "out").exists()


def test_reports_are_found_in_files_folders_and_folders_of_folders(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    one = folders["conforms"]
    assert [*find_reports([one])] == [*find_reports([one / "report.json"])]
    assert set(find_reports([one.parent])) == {path / "report.json" for path in folders.values()}
    with pytest.raises(ResultError, match=r"no report\.json in"):
        list(find_reports([one, tmp_path]))


# The pages


def test_the_page_tells_what_is_broken_with_evidence_and_replay(folders: dict[str, Path]) -> None:
    page = Page((folders["broken"] / "index.html").read_text(encoding="utf-8"))
    assert "2 MUSTs are broken, in 2 of 3 claimed modes" in page.text
    entry = page.text_of["s1-FILES-005"]
    assert SPEC["FILES-005"].text.replace("`", "") in entry
    assert "found model.safetensors" in entry
    assert "rank 1" in entry
    assert "seed 3" in entry
    assert """echo '{"mode": "full-single", "tokenizer": "plain", "seed": 3}' | """ in entry
    assert "tokenizer plain: it has no chat template" in entry
    for part in ("torch", "transformers", "UTC", "CPU cores", "seeds 3 to 3", "3 of 3 cases"):
        assert part in page.text


@pytest.mark.slow
def test_every_field_opens_what_it_sums_up(results: tuple[Result, ...], site: Page) -> None:
    subjects = view_subjects(_ordered(results))
    by_areas = [savers_by_areas(subjects, folder) for folder in FOLDERS]
    matrices = [*by_areas, savers_by_modes(subjects)]
    opened = 0
    for matrix in (*matrices, *(subject.matrix for subject in subjects)):
        for line in matrix.lines:
            for cell in line.cells:
                if cell.status in ("not claimed", "no demand", "not tried"):
                    continue
                opened += 1
                inside = site.text_of[cell.target]
                assert WORDS[cell.status] in inside
                if cell.status in ("fail", "deviation"):
                    assert "saver-conformance replay" in inside
                if cell.status == "unavailable":
                    assert "because of" in inside or "damaged" in inside
    assert opened > 100


def _ordered(results: tuple[Result, ...]) -> list[Result]:
    order = [1, 3, 2, 0]
    return sorted(
        results, key=lambda item: (order.index(item.exit_code), -len(item.broken()), item.saver)
    )


def test_every_clause_stands_with_its_sentence(folders: dict[str, Path]) -> None:
    page = Page((folders["conforms"] / "index.html").read_text(encoding="utf-8"))
    for clause, item in read_report(folders["conforms"])["spec"].items():  # type: ignore[attr-defined]
        assert item["text"].replace("`", "") in page.text_of[f"s1-{clause}"]


def test_failures_stand_first(results: tuple[Result, ...], site: Page) -> None:
    lines = savers_by_areas(view_subjects(_ordered(results))).lines
    verdicts = [line.note.partition(",")[0] for line in lines]
    assert verdicts == ["does not conform"] * 4 + ["harness failed"] + ["inconclusive"] * 2 + (
        ["conforms"] * 3
    )
    broken = _ordered(results)[0]
    subject = view_subject(broken, "s1")
    assert subject.areas[0].status == "fail"
    assert subject.areas[-1].status != "fail"
    assert subject.areas[0].entries[0].status == "fail"
    assert subject.modes[0].status == "fail"
    named = [attributes.get("id") for tag, attributes in site.elements if tag == "article"]
    assert named == [f"s{n}" for n in range(1, len(results) + 1)]


def test_what_a_saver_has_no_part_in_is_not_claimed(results: tuple[Result, ...]) -> None:
    [partial] = [result for result in results if result.saver == "weights.only:save"]
    subject = view_subject(partial, "s1")
    [meta] = [panel for panel in subject.areas if panel.name == "META"]
    assert {entry.status for entry in meta.entries} == {meta.status} == {"not claimed"}
    assert "META" not in {
        group.area for mode in subject.modes for group in mode.groups if group.told
    }
    page = Page(render_site([partial]))
    assert "claims no part in" in page.text


def test_two_runs_of_one_saver_are_told_apart(results: tuple[Result, ...]) -> None:
    one = results[0]
    other = replace(one, versions={**one.versions, "transformers": "5.16.0"})
    names = [subject.name for subject in view_subjects([one, other])]
    assert names[1] == f"{one.saver} (transformers 5.16.0)"
    assert len(set(names)) == 2
    page = Page(render_site([one, other]))
    assert names[1] in page.text
    others = [one, replace(one, profile="gate"), replace(one, time="2026-01-01T00:00:00Z")]
    assert view_subjects(others)[1].name == f"{one.saver} (gate)"
    subjects = view_subjects([one, others[2]])
    assert subjects[1].name == f"{one.saver} (2026-01-01T00.00.00Z)"
    assert len(savers_by_areas(subjects).groups) == 2


def test_every_link_leads_into_the_page_and_nothing_is_loaded(
    folders: dict[str, Path], site: Page
) -> None:
    for page in (site, *pages(folders)):
        for target in page.values("href"):
            assert target == "data:," or target[1:] in {"main", *page.text_of}, target
        assert list(page.values("src")) == []
        assert not re.search(r"url\(|@import|https?:", _style(page))


def _style(page: Page) -> str:
    # ``Page`` leaves style and script out of its texts; they are the same on all pages.
    folder = Path(cli.__file__).parent / "reports" / "templates"
    return (folder / "style.css").read_text() + (folder / "filter.js").read_text()


def test_no_text_of_a_report_becomes_markup(folders: dict[str, Path], site: Page) -> None:
    for page in (site, Page((folders["evil"] / "index.html").read_text(encoding="utf-8"))):
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == tags.count("style") == 1
        assert "img" not in tags
        names = {name for _, attributes in page.elements for name in attributes}
        assert not {name for name in names if name.startswith("on") or name == "style"}
        assert "<script>alert(1)</script>" in page.text
        assert not re.search("[\x00\x1b\u202e]", page.text)


def test_the_policy_names_what_is_on_the_page(site: Page) -> None:
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in site.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2


def test_a_saver_that_breaks_everything_has_a_page_that_opens(tmp_path: Path) -> None:
    long = "\n".join(["a line of a traceback" * 10] * 50)
    broken = make_verdict("pkg:save", [make_record(m, broken=CHECKED, text=long) for m in CLAIMED])
    failed = make_verdict("pkg:save", [make_record(m, status="error", text=long) for m in CLAIMED])
    for verdict in (broken, failed):
        write_report(verdict, tmp_path)
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert sizes["index.html"] < 1_500_000 * len(CLAIMED)
        assert sizes["summary.md"] < 1_000_000  # what a job's summary may have


def test_nothing_is_scored(folders: dict[str, Path], site: Page) -> None:
    for page in (site, *pages(folders)):
        assert "%" not in page.text
        assert "percent" not in page.text
    for folder in folders.values():
        for name in ("summary.md", "badge.json"):
            assert "%" not in (folder / name).read_text(encoding="utf-8")


# What CI reads


def test_junit_fails_where_the_run_does(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        root = ET.parse(folder / "junit.xml").getroot()
        tests = list(root.iter("testcase"))
        failures, errors = list(root.iter("failure")), list(root.iter("error"))
        assert bool(failures or errors) == (CODES[name] != 0), name
        assert bool(failures) == (CODES[name] == 1), name
        assert int(root.get("tests", "")) == len(tests)
        assert int(root.get("failures", "")) == len(failures)
        assert int(root.get("errors", "")) == len(errors)
        assert int(root.get("skipped", "")) == len(list(root.iter("skipped")))
        assert len({(test.get("classname"), test.get("name")) for test in tests}) == len(tests)
    broken = ET.parse(folders["broken"] / "junit.xml").getroot()
    [failure] = broken.findall("testsuite[@name='full-zero3']/testcase/failure")
    assert failure.get("message") == SPEC["RELOAD-001"].text
    assert "found:    found model.safetensors" in (failure.text or "")


@pytest.mark.parametrize(
    ("name", "message", "color"),
    [
        ("conforms", "conforms (smoke, 3 modes)", "brightgreen"),
        ("waived", "conforms (smoke, 3 modes, 1 waived)", "brightgreen"),
        ("broken", "2 MUSTs broken", "red"),
        ("wrong waiver", "does not conform", "red"),
        ("inconclusive", "inconclusive", "yellow"),
        ("harness", "harness failed", "lightgrey"),
    ],
)
def test_the_badge(name: str, message: str, color: str, folders: dict[str, Path]) -> None:
    badge = json.loads((folders[name] / "badge.json").read_text())
    label = "saver conformance"
    assert badge == {"schemaVersion": 1, "label": label, "message": message, "color": color}


def test_the_summary_tells_the_verdict_and_what_is_broken(folders: dict[str, Path]) -> None:
    text = (folders["broken"] / "summary.md").read_text()
    assert text.startswith("## `framework.trainer:save_model` does not conform: 2 MUSTs are broken")
    assert "| full-zero3 |" in text
    assert "### FILES-005 (MUST)" in text
    assert SPEC["RELOAD-001"].text in text
    assert "saver-conformance replay" in text
    assert "ADAPTER-001" not in text


def test_markdown_holds_text_that_wants_to_leave(folders: dict[str, Path]) -> None:
    assert code("a`b``c") == "```a`b``c```"
    assert code("`a|b\nc") == "`` `a\\|b c ``"
    assert block("x\n```\ny").splitlines()[0] == "````text"
    text = (folders["evil"] / "summary.md").read_text(encoding="utf-8")
    outside = re.sub(r"(`{3,})text\n.*?\n\1\n", "", text, flags=re.DOTALL)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<" not in outside
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line[:1] == "|"}
    assert len(widths) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["areas", "modes"])
def test_the_matrix_as_text(
    name: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    compared = [str(folders[name]) for name in ("conforms", "broken", "inconclusive")]
    with pytest.raises(SystemExit) as end:
        cli.main(["site", *compared, f"--text={name}"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    tally = "Of 3 savers, 1 does not conform, 1 not judged to the end and 1 conforms."
    assert shown.startswith(tally)
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "**FAIL**" in next(line for line in lines if "framework.trainer:save_model" in line)
    assert "pass: every planned case was checked, and holds" in shown
    assert f"python {platform.python_version()}" in shown


def test_the_command_writes_the_site(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, compared = tmp_path / "a" / "site", [folders["conforms"], folders["broken"]]
    with pytest.raises(SystemExit) as end:
        cli.main(["site", *map(str, compared), "--out", str(out)])
    assert end.value.code == 0
    assert str(out / "index.html") in capsys.readouterr().out
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "Of 2 savers, 1 does not conform and 1 conforms." in page.text
    text = (out / "matrix.md").read_text(encoding="utf-8")
    assert text.count("\n| --- ") == len(TABLES) + 1  # two kinds of folders
    assert "| saver | method | single |" in text


def test_a_verdict_is_one_sentence(results: tuple[Result, ...]) -> None:
    told = {result.saver: sentence(result) for result in results}
    musts = (clause for clause in SPEC.values() if clause.level == "MUST")
    others = sum(clause.area in NOT_PLANNED for clause in musts)
    assert told["good.saving:save"] == (
        "conforms: every claimed MUST that is tried was checked in 3 cases of 3 claimed modes, "
        f"and holds; the profile plans no case for {others} other MUSTs"
    )
    assert "holds or is waived; " in told["waived.saving:save"]
    assert told["waived.saving:save"].endswith("; 1 clause waived")
    meta = sum(clause.area == "META" and clause.level == "MUST" for clause in SPEC.values())
    assert told["weights.only:save"].endswith(f"; the saver claims no part in {meta} MUSTs")
    assert told["careless.saving:save"] == "does not conform: 1 waiver is wrong"
    assert told["rare.saving:save"] == "was not judged to the end: 1 of 3 planned cases not run"
    assert told["unlucky.saving:save"].startswith("was not judged: the harness failed")
    assert len(told) == len(made_verdicts())
    assert EVIL not in told
