"""The built site in a browser: it can be read and searched, on any window, without a network."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
    ),
    pytest.mark.skipif(
        not (SITE / "index.html").is_file(), reason="there is no site/; run nox -s docs first"
    ),
]
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
support_wait = pytest.importorskip("selenium.webdriver.support.wait")
AXE = pytest.importorskip("axe_core_python.base", reason="axe is not installed").AXE_SCRIPT

NARROW, WIDE = 380, 1300
HAS_SCHEME = """
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return document.body.dataset.mdColorScheme === (dark ? "slate" : "default");
"""
PAGES = (
    "index.html",
    "clauses/FILES/index.html",
    "guides/failing-clause/index.html",
    "reference/report/index.html",
    "reference/api-saver/index.html",
    "results/savers/index.html",
    "results/performance/index.html",
    "architecture/index.html",
)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Requests are of no interest."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module", params=["light", "dark"])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A browser on its first visit, as the theme keeps a scheme, and a reader who prefers one."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    # Nothing but the site is reachable, as on a machine without a network.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        driver.set_script_timeout(240)
        wish = {"name": "prefers-color-scheme", "value": request.param}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})
        yield driver


def show(browser: Any, address: str, page: str, width: int) -> None:
    """Open a page in a window, and wait for the scheme that the reader wishes."""
    window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    browser.get(f"{address}/{page}")
    support_wait.WebDriverWait(browser, 120).until(
        lambda _: browser.execute_script(HAS_SCHEME), f"{page} has the scheme of the system"
    )


def test_the_site_has_the_pages_of_this_test() -> None:
    assert [page for page in PAGES if not (SITE / page).is_file()] == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_no_page_is_wider_than_its_window_or_complains(
    width: int, browser: Any, address: str
) -> None:
    browser.get_log("browser")
    wide = {}
    for page in PAGES:
        show(browser, address, page, width)
        shown = browser.execute_script("return document.documentElement.scrollWidth")
        if shown > width:
            wide[page] = shown
        assert browser.find_element("css selector", "article h1").is_displayed()
    assert wide == {}
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("page", PAGES[:2])
def test_axe_finds_nothing_serious(page: str, browser: Any, address: str) -> None:
    show(browser, address, page, WIDE)
    browser.execute_script(AXE)
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = browser.execute_async_script(
        "axe.run({runOnly: arguments[0]}).then(arguments[1])", rules
    )
    serious = [
        (item["id"], item["nodes"][0]["html"], item["nodes"][0]["failureSummary"])
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert {"color-contrast", "link-name"} <= {item["id"] for item in found["passes"]}


SEARCH = """
    const [words, done] = arguments;
    document.querySelector("[data-md-component=search-query], .md-search__input")?.focus();
    const field = document.querySelector(".md-search__input");
    field.value = words;
    field.dispatchEvent(new Event("input", {bubbles: true}));
    field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
    const started = Date.now();
    const look = () => {
      const links = [...document.querySelectorAll(".md-search-result__link")].map(e => e.href);
      if (links.length || Date.now() - started > 120000) done(links);
      else setTimeout(look, 200);
    };
    look();
"""


def test_search_finds_a_clause_without_a_network(browser: Any, address: str) -> None:
    show(browser, address, PAGES[0], WIDE)
    links = browser.execute_async_script(SEARCH, "FILES-005")
    assert any("failing-clause" in link or "clauses/FILES" in link for link in links), links
