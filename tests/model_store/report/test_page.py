"""The report in a real browser, opened from disk: it fits a desk, a phone and paper, and nothing in it is cut off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.report.page import render
from tests.model_store.report.test_charts import EVIL, classifier, record, regression
from tests.service.routes.test_docs import FLAGS

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH"),
]

MANY = tuple(f"a bird with a long name {i}" for i in range(15))
# Names of ticks that touch their neighbour on the axis below a drawing.
TOUCHING = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const places = [...svg.querySelectorAll("text.tick.middle")].map(text => [text.getBoundingClientRect(), text]);
  return places.flatMap(([one, text]) => places.filter(([other]) =>
    other.left > one.left && other.left < one.right && Math.abs(other.top - one.top) < 1
  ).map(([, other]) => text.textContent + "|" + other.textContent));
})"""
MODELS = {
    "two": classifier(("no", "yes"), record(("no", "yes"))),
    "many": classifier(MANY, record(MANY, 1000)),
    "hostile": classifier((EVIL, "yes"), record((EVIL, "yes")), EVIL, description=EVIL),
    "values": regression(("price", "a target with a rather long name")),
    "large": regression(points=[[-3.4e6, -3.3e6], [3.9e6, 3.8e6]]),
}
# Texts of drawings that reach out of them, by more than a pixel.
CUT_OFF = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const room = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const place = text.getBoundingClientRect();
    return place.left < room.left - 1 || place.right > room.right + 1 ||
           place.top < room.top - 1 || place.bottom > room.bottom + 1;
  }).map(text => text.textContent);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_report_fits_its_screen_without_a_complaint(
    browser: Any, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(MODELS[name], f"{name}/1"), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    assert page.locator("svg").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.querySelectorAll('table.stacks')].every(t => t.scrollWidth <= innerWidth - 32)")
    assert page.evaluate("[...document.querySelectorAll('.tiles b')].every(b => b.offsetHeight < 40)")
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(TOUCHING) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 29)"
    assert dark == (scheme == "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert complaints == []
    page.close()
