"""The report in a browser, opened from disk: layout on desktop, phone and paper, and no clipped text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.report.page import render
from tests.chromium import browser, in_browser  # noqa: F401 - a fixture
from tests.model_store.report.examples import EVIL, classifier, record, regression, search

pytestmark = [*in_browser]

MANY = tuple(f"a bird with a long name {i}" for i in range(15))
# Tick labels that overlap the next label of the axis.
OVERLAPPING = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text.tick.middle")].map(text => [text.getBoundingClientRect(), text]);
  return boxes.flatMap(([one, text]) => boxes.filter(([other]) =>
    other.left > one.left && other.left < one.right && Math.abs(other.top - one.top) < 1
  ).map(([, other]) => text.textContent + "|" + other.textContent));
})"""
MODELS = {
    "two": classifier(("no", "yes"), record(("no", "yes"))),
    "many": classifier(MANY, record(MANY, 1000)),
    "hostile": classifier((EVIL, "yes"), record((EVIL, "yes")), EVIL, description=EVIL),
    "values": regression(("price", "a target with a rather long name")),
    "searched": classifier(("no", "yes"), {**record(("no", "yes")), "search": search()}),
    "large": regression(points=[[-3.4e6, -3.3e6], [3.9e6, 3.8e6]]),
}
# Texts that extend out of their chart by more than a pixel.
CLIPPED = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const chart = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < chart.left - 1 || box.right > chart.right + 1 ||
           box.top < chart.top - 1 || box.bottom > chart.bottom + 1;
  }).map(text => text.textContent);
})"""


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_a_report_fits_its_screen_without_browser_errors(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    name: str,
    width: int,
    scheme: str,
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(MODELS[name], f"{name}/1"), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda request: errors.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    assert page.locator("svg").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.querySelectorAll('table.stacks')].every(t => t.scrollWidth <= innerWidth - 32)")
    assert page.evaluate("[...document.querySelectorAll('.tiles b')].every(b => b.offsetHeight < 40)")
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(OVERLAPPING) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 29)"
    assert dark == (scheme == "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert errors == []
    page.close()


def test_the_form_predicts_as_the_model_does_and_shows_names_as_text(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    for name, model, row in [
        ("two", MODELS["two"], [3.5, "York"]),
        ("hostile", MODELS["hostile"], [-2, "Bath"]),
        ("values", MODELS["values"], None),
    ]:
        path = tmp_path / f"{name}.html"
        path.write_text(render(model, "chess/3"))
        page = browser.new_page(viewport={"width": 360, "height": 800})
        problems: list[str] = []
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        page.on("console", lambda message, problems=problems: problems.append(message.text))
        page.goto(path.as_uri())
        if row is not None:
            page.fill("#try-0", str(row[0]))
            page.select_option("#try-1", row[1])
            (expected,) = model.predict([row])
            (shown,) = page.locator("#try-answer p").filter(has_text="yes").locator("b").all_inner_texts()
            assert shown == f"{100 * expected['probabilities']['yes']:.1f} %"
            page.fill("#try-0", "")
            assert "expected a number, found none" in page.inner_text("#try-answer")
        assert problems == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()
