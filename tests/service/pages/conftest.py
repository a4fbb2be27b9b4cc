"""Pages in Debian's Chromium: what each must satisfy, checked for every page that a test opens.

    def test_the_page_shows_the_model(open_page, server):
        page = open_page(server, "/models/penguins")
        ...
        check_layout(page)

A test fails if the browser logged an error, a violation of the Content-Security-Policy, an exception or a failed
request. A test that causes one on purpose removes it from `page.complaints`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import browser, in_browser  # noqa: F401 - a fixture, and the marks of the tests
from tests.service.server.conftest import own_server, server  # noqa: F401 - fixtures
from tests.service.server.server_process import Server, until

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
# The npm package axe-core, file axe.min.js, of the Mozilla Public License 2.0.
_AXE = Path(__file__).parents[2] / "fixtures" / "axe-core-4.10.3.min.js.gz"
_REPORT_VIOLATIONS = "document.addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))"

OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:  # noqa: F811
    """Open a path of a server (or a URL) in a context of its own. After the test, no page may have complained."""
    pages = []

    def opened(server: Server | str, path: str = "/", viewport: dict[str, int] = PHONE, **options: Any) -> Any:  # noqa: F811
        context = browser.new_context(viewport=viewport, **options)
        page = context.new_page()
        watch(page)
        pages.append(page)
        _load(page, server + path if isinstance(server, str) else f"http://127.0.0.1:{server.port}{path}")
        return page

    yield opened
    complaints = [complaint for page in pages for complaint in page.complaints]
    for page in pages:
        page.context.close()
    assert complaints == []


def _load(page: Any, url: str) -> None:
    """Open a page until its scripts run: a busy machine makes the service answer some of its files with 503."""
    for _ in range(10):
        page.goto(url)
        if page.locator("body[data-script]").count() == 0:
            return
        until(lambda: page.evaluate("document.body.dataset.state || performance.now() > 10000"))
        if page.evaluate("document.body.dataset.state") == "started":
            return
        page.complaints.clear()


def watch(page: Any) -> None:
    """Collect what the browser finds wrong in `page.complaints`."""
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("requestfailed", lambda request: _note_failure(page, request))
    page.add_init_script(_REPORT_VIOLATIONS)


def _note_failure(page: Any, request: Any) -> None:
    if request.failure != "net::ERR_ABORTED":  # polling that stops when a page is left
        page.complaints.append(f"{request.url}: {request.failure}")


def check_layout(page: Any) -> None:
    """Check in both themes, at 360 and 1280 px: no horizontal scroll, and nothing serious for axe-core."""
    before = page.viewport_size
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        for viewport in (PHONE, DESK):
            page.set_viewport_size(viewport)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{viewport['width']} px, {theme}: {wide} px too wide"
            found = serious_faults(page)
            assert found == [], f"{viewport['width']} px, {theme}: {found}"
    page.set_viewport_size(before)


def serious_faults(page: Any) -> list[str]:
    """Return what axe-core finds that is serious or critical."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]


@cache
def _axe() -> str:
    return gzip.decompress(_AXE.read_bytes()).decode("utf-8")
