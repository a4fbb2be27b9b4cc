"""What a browser receives until a page is complete: fewer than 100 kB, compressed by the service with gzip."""

from __future__ import annotations

import pytest

from tests.chromium import in_browser
from tests.service.pages.conftest import DESK, OpenPage
from tests.service.server.server_process import Server

pytestmark = [*in_browser]

MAX_BYTES = 100_000
# Each page, and what is on it when its scripts have run.
PAGES = {
    "/": ".card",
    "/traffic": "[data-part=recent] > *",
    "/reports": ".report-cards li",
    "/models/penguins": ".status:not(:empty)",
    "/models/image": ".status:not(:empty)",
    "/models/penguins/compare?first=1&second=1": "#comparison",
    "/models/penguins/versions/1/report": "main h2",
    "/models/penguins/network": "#layers .cells",
    "/models/image/network": "#layers .cells",
    "/xor": "#xor svg",
    "/docs": "form.try",
}


@pytest.mark.parametrize("path", PAGES)
def test_first_paint_takes_less_than_100_kb(open_page: OpenPage, server: Server, path: str) -> None:
    page = open_page(server, "/healthz", DESK)
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    urls: dict[str, str] = {}
    sizes: dict[str, float] = {}
    network.on("Network.responseReceived", lambda event: urls.update({event["requestId"]: event["response"]["url"]}))
    network.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    page.goto(f"http://127.0.0.1:{server.port}{path}")
    page.locator(PAGES[path]).first.wait_for()
    if path != "/traffic":  # which goes on asking
        page.wait_for_load_state("networkidle")
    by_url = {urls[request]: size for request, size in sizes.items() if request in urls}
    total = sum(by_url.values())
    assert len(by_url) >= 3
    assert total < MAX_BYTES, f"{total:,.0f} bytes: {sorted(by_url.items(), key=lambda one: -one[1])}"
