"""The pages in a browser: fields open, nothing overflows, everything can be read and reached."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.base import AXE_SCRIPT
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from tests.helpers.verdicts import write_reports

from saver_conformance.reports.result import read_results
from saver_conformance.reports.site import write

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
COMPARED = ("conforms", "broken", "slightly broken", "waived")
NARROW, WIDE = 360, 1280
PAGES = ("site", "report")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A site and a report, each as it is and as a browser without scripts sees it."""
    folder = tmp_path_factory.mktemp("pages")
    reports = write_reports(folder / "reports")
    files = {
        "site": write(read_results(reports[name] for name in COMPARED), folder / "site"),
        "report": reports["evil"] / "index.html",
    }
    for name, path in dict(files).items():
        plain = re.sub(r"<script>.*</script>", "", path.read_text(encoding="utf-8"), flags=re.S)
        files[f"{name} without script"] = path.with_name("plain.html")
        files[f"{name} without script"].write_text(plain, encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        driver.set_script_timeout(120)
        yield driver


def show(
    browser: webdriver.Chrome,
    file: Path,
    *,
    width: int = WIDE,
    scheme: str = "light",
    media: str = "screen",
) -> None:
    """Open ``file`` afresh, as a reader with this window and these wishes sees it."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    emulated = {"features": features, "media": media}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    window = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    browser.get("about:blank")
    browser.get(file.as_uri())


def unfold_all(browser: webdriver.Chrome) -> None:
    browser.execute_script("for (const e of document.querySelectorAll('details')) e.open = true")


def is_visible(browser: webdriver.Chrome, selector: str) -> bool:
    script = """
        const element = document.querySelector(arguments[0]);
        return Boolean(element?.checkVisibility({contentVisibilityAuto: true}))
    """
    seen: bool = browser.execute_script(script, selector)
    return seen


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, selector)
    return [element.text for element in found if element.is_displayed()]


def focused(browser: webdriver.Chrome) -> WebElement:
    return browser.switch_to.active_element


@pytest.mark.parametrize("suffix", ["", " without script"])
def test_fields_open_their_evidence(
    suffix: str, browser: webdriver.Chrome, files: dict[str, Path]
) -> None:
    show(browser, files[f"site{suffix}"])
    fields = browser.find_elements(By.CSS_SELECTOR, "main > section .matrix a.cell.fail")
    assert len(fields) >= 6
    for field in fields:
        target = (field.get_attribute("href") or "").partition("#")[2]
        inside = f"[id='{target}'] "
        field.click()
        assert is_visible(browser, f"{inside} .clause.fail .sentence")
        assert is_visible(browser, f"{inside} .clause.fail .evidence .command")
        place = browser.find_element(
            By.CSS_SELECTOR, f"[id='{target}']"
        ).location_once_scrolled_into_view
        assert 0 <= place["y"] < 800
    # The fields of one saver's modes are folded away themselves.
    show(browser, files[f"site{suffix}"])
    browser.find_element(By.CSS_SELECTOR, "article details.more summary").click()
    field = browser.find_element(By.CSS_SELECTOR, "article .matrix a.cell.fail")
    target = (field.get_attribute("href") or "").partition("#")[2]
    assert not is_visible(browser, f"[id='{target}'] .command")
    field.click()
    assert is_visible(browser, f"[id='{target}'] .command")


def test_the_filter(browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    show(browser, files["site"])
    everything = len(texts(browser, "main .matrix tbody tr"))
    assert len(texts(browser, "article")) == len(COMPARED)
    name = browser.find_element(By.NAME, "saver")
    name.send_keys("TRAINER")
    assert texts(browser, "article h2") == ["framework.trainer:save_model"]
    assert all("save_model" in line for line in texts(browser, "main .matrix tbody tr"))
    assert texts(browser, "output") == [f"1 of {len(COMPARED)} savers"]
    name.clear()
    name.send_keys(" ")
    assert len(texts(browser, "main .matrix tbody tr")) == everything
    browser.find_element(By.CSS_SELECTOR, "input[value='fail']").click()
    assert len(texts(browser, "article")) == 2
    assert set(texts(browser, "article > .panels > details > summary .cell")) == {"FAIL"}
    # What is hidden is shown when a field leads to it.
    passing = browser.find_element(By.CSS_SELECTOR, "main > section .matrix a.cell.pass")
    target = (passing.get_attribute("href") or "").partition("#")[2]
    assert not is_visible(browser, f"[id='{target}']")
    passing.click()
    assert is_visible(browser, f"[id='{target}']")


def test_without_a_script_there_is_no_filter(
    browser: webdriver.Chrome, files: dict[str, Path]
) -> None:
    show(browser, files["site without script"])
    assert not is_visible(browser, ".filters")
    assert len(texts(browser, "article")) == len(COMPARED)


@pytest.mark.parametrize("page", PAGES)
def test_the_rules_of_accessibility(
    page: str, browser: webdriver.Chrome, files: dict[str, Path]
) -> None:
    show(browser, files[page])
    unfold_all(browser)
    browser.execute_script(AXE_SCRIPT)
    # The site's articles are made like the report, and so many that axe takes a minute.
    run = "axe.run({exclude: [['article']]}, {runOnly: arguments[0]}).then(arguments[1])"
    found: dict[str, Any] = browser.execute_async_script(run, WCAG)
    told = [
        (item["id"], item["nodes"][0]["html"], item["nodes"][0]["failureSummary"])
        for item in found["violations"]
    ]
    assert told == []
    assert {"color-contrast", "link-name", "label"} <= {item["id"] for item in found["passes"]}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(
    page: str, scheme: str, browser: webdriver.Chrome, files: dict[str, Path]
) -> None:
    show(browser, files[page], scheme=scheme)
    unfold_all(browser)
    pairs = browser.execute_script(TEXT_COLORS)
    assert len(pairs) >= 8
    for color, background, sample in pairs:
        assert contrast(color, background) >= 4.5, (color, background, sample)


TEXT_COLORS = """
    const pairs = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.textContent.trim();
      if (!text || !walker.currentNode.parentElement.checkVisibility()) continue;
      let at = walker.currentNode.parentElement;
      const color = getComputedStyle(at).color;
      while (at && getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)")
        at = at.parentElement;
      const background = getComputedStyle(at).backgroundColor;
      pairs.set(color + background, [color, background, text.slice(0, 40)]);
    }
    return [...pairs.values()];
"""


def contrast(one: str, other: str) -> float:
    """The ratio that WCAG defines, of two colours as ``rgb(R, G, B)``."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    assert color.startswith("rgb("), color
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def test_the_schemes_differ(browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        show(browser, files["site"], scheme=scheme)
        seen.add(
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        )
    assert len(seen) == 2


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [NARROW, 600, 900, WIDE])
def test_nothing_overflows(
    page: str, width: int, browser: webdriver.Chrome, files: dict[str, Path]
) -> None:
    show(browser, files[page], width=width)
    unfold_all(browser)
    wide = browser.execute_script(
        "return [...document.querySelectorAll('main *, header *, footer *')].filter(e =>"
        "  e.getBoundingClientRect().right > innerWidth && !e.closest('.unseen'))"
        "  .map(e => e.outerHTML.slice(0, 100))"
    )
    assert wide == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything(browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    show(browser, files["site"])
    reached = []
    for _ in range(12):
        focused(browser).send_keys(Keys.TAB)
        outline = focused(browser).value_of_css_property("outline-style")
        assert outline != "none"
        reached.append(focused(browser).get_attribute("class") or focused(browser).tag_name)
    assert reached[:4] == ["skip", "input", "input", "name"]
    assert "cell fail" in reached
    while "fail" not in (focused(browser).get_attribute("class") or ""):
        focused(browser).send_keys(Keys.TAB)
    target = (focused(browser).get_attribute("href") or "").partition("#")[2]
    assert not is_visible(browser, f"[id='{target}'] .command")
    focused(browser).send_keys(Keys.ENTER)
    assert is_visible(browser, f"[id='{target}'] .command")
    # Tab goes on from there, and the panel's head folds it again.
    focused(browser).send_keys(Keys.SHIFT, Keys.TAB)
    assert focused(browser).tag_name == "summary"
    focused(browser).send_keys(Keys.ENTER)
    assert not is_visible(browser, f"[id='{target}'] .command")


@pytest.mark.parametrize("page", PAGES)
def test_paper_has_what_fails(page: str, browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    show(browser, files[page], media="print", scheme="dark")
    assert is_visible(browser, ".panels.areas .clause.fail .command")
    assert not is_visible(browser, ".filters")
    body = browser.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_the_console_stays_empty(browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    browser.get_log("browser")  # of the other tests, whose own scripts the page's policy may refuse
    for file in files.values():
        show(browser, file)
        for field in browser.find_elements(By.CSS_SELECTOR, ".matrix a.cell.fail")[:3]:
            browser.execute_script("arguments[0].click()", field)
    assert browser.get_log("browser") == []


def test_no_name_runs_as_a_script(browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    show(browser, files["report"])  # an alert would make every next command fail
    assert "<script>alert(1)</script>" in browser.find_element(By.TAG_NAME, "h1").text
    assert browser.find_elements(By.TAG_NAME, "img") == []
