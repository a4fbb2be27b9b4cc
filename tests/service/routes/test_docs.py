"""The reference page in a real browser: it loads under its Content-Security-Policy, and its form works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.pages.conftest import browser, check_layout, in_browser, open_page  # noqa: F401 - fixtures
from tests.service.security.keys import line
from tests.service.server.conftest import own_server, server  # noqa: F401 - fixtures

pytestmark = [*in_browser]


@pytest.fixture
def page(open_page, server) -> Any:  # noqa: F811
    return open_page(server, "/docs")


def test_page_loads_without_console_errors_and_fits_a_phone(page):
    assert page.title() == "Forward Pass: API reference"
    assert page.locator("section.model h2").all_inner_texts()[1].startswith("penguins")
    assert page.evaluate("document.styleSheets.length === 2 && getComputedStyle(document.body).margin === '0px'")
    check_layout(page)


def test_form_shows_the_prediction(page):
    form = page.locator("form[data-model=penguins]")
    form.get_by_label("mass").fill("5100")
    form.get_by_role("button", name="Predict").click()
    form.locator(".bars").wait_for()
    assert form.locator(".answer").inner_text() in {"Adelie", "Gentoo"}
    assert form.locator(".status").inner_text().startswith("200")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("425453.29615564056", "425,453"),
        ("-12345678.9", "-12,345,679"),
        ("3.14159265", "3.14159"),
        ("0.00123456789", "0.00123457"),
        ("0", "0"),
        ("1.23456789e-9", "1.23457e-9"),
        ("'Gentoo'", "Gentoo"),
    ],
)
def test_answers_are_short_numbers(page, value: str, shown: str) -> None:
    assert page.evaluate(f"import('/static/page.js').then((page) => page.short({value}))") == shown


def test_form_shows_errors_with_their_locations(page):
    form = page.locator("form[data-model=penguins]")
    form.get_by_label("mass").fill("heavy")
    form.get_by_role("button", name="Predict").click()
    form.locator(".faults li").wait_for()
    assert "instances.0.mass" in form.locator(".faults").inner_text()
    assert "found 'heavy'" in form.locator(".faults").inner_text()
    page.complaints = [text for text in page.complaints if "422" not in text]


def test_drawing_on_an_image_updates_the_request(page):
    form = page.locator("form[data-model=image]")
    form.get_by_role("button", name="Clear").click()
    assert (
        page.evaluate("JSON.parse(document.querySelector('form[data-model=image] textarea').value).instances[0][0][0]")
        == 0
    )
    box = form.locator("canvas.pad").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 150, steps=5)
    page.mouse.up()
    assert (
        page.evaluate("JSON.parse(document.querySelector('form[data-model=image] textarea').value).instances[0][0][0]")
        > 0
    )
    form.get_by_role("button", name="Predict").click()
    form.locator(".answer").first.wait_for()


KEY = "fp_predict"


@pytest.fixture
def guarded(open_page, own_server, tmp_path: Path) -> Iterator[Any]:  # noqa: F811
    """The page of a service that requires keys, before a key is given."""
    keys = tmp_path / "keys"
    keys.write_text(line("browser", "predict", KEY) + line("grafana", "metrics", "fp_metrics"))
    page = open_page(own_server(SERVE_KEYS_FILE=str(keys)), "/docs")
    yield page
    page.complaints = [text for text in page.complaints if "401" not in text and "403" not in text]  # before the key


def give(page: Any, secret: str) -> None:
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Open").click()


def test_a_browser_asks_for_the_key_and_then_shows_the_page_with_its_forms(guarded: Any) -> None:
    page = guarded
    assert page.title() == "Forward Pass: API key"
    assert page.locator("section.model").count() == 0
    assert page.evaluate("document.activeElement.type") == "password"
    give(page, KEY)
    page.locator("section.model").first.wait_for()
    assert page.title() == "Forward Pass: API reference"
    form = page.locator("form[data-model=penguins]")
    form.get_by_label("mass").fill("5100")
    form.get_by_role("button", name="Predict").click()
    form.locator(".bars").wait_for()
    assert form.locator(".status").inner_text().startswith("200")
    with page.expect_download() as download:
        page.get_by_role("link", name="OpenAPI document").click()
    assert json.loads(Path(download.value.path()).read_text())["openapi"].startswith("3.1")


def test_the_key_is_in_the_memory_of_the_page_only(guarded: Any) -> None:
    page = guarded
    give(page, KEY)
    page.locator("section.model").first.wait_for()
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert KEY not in page.url + page.content()
    page.reload()
    assert page.title() == "Forward Pass: API key"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("fp_wrong", "This key is unknown or no longer valid. Check it."),
        ("fp_metrics", "This key lacks the scope predict."),
        ("", "This key is unknown or no longer valid. Check it."),
    ],
)
def test_a_wrong_key_is_explained_and_another_can_be_given(guarded: Any, secret: str, said: str) -> None:
    page = guarded
    give(page, secret)
    page.locator(".faults li").wait_for()
    text = page.locator(".faults").inner_text()
    assert said in text
    assert "Authorization" not in text  # advice for programs
    give(page, KEY)
    page.locator("section.model").first.wait_for()


@pytest.mark.parametrize("width", [400, 1200])
def test_the_form_for_the_key_has_the_width_of_a_form_and_its_outline_leaves_the_label_free(
    guarded: Any, width: int
) -> None:
    guarded.set_viewport_size({"width": width, "height": 800})
    box = guarded.locator("form.key").bounding_box()
    assert box["width"] == min(width - 32, 544)
    assert abs(box["x"] + box["width"] / 2 - width / 2) < 8
    label, field = guarded.locator("form.key label span").bounding_box(), guarded.get_by_label("API key").bounding_box()
    assert label["y"] + label["height"] + 4 <= field["y"]  # 2 px of outline, 2 px from the field
