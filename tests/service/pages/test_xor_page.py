"""The page /xor trains XOR in Chromium, phase by phase and by itself."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.service.pages.conftest import OpenPage, check_layout, in_browser
from tests.service.server.server_process import Server

pytestmark = list(in_browser)


@pytest.fixture
def page(open_page: OpenPage, server: Server) -> Any:
    opened = open_page(server, "/xor")
    opened.locator("#diagram svg").wait_for()  # hidden elements do not take the focus
    return opened


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def output_of(page: Any, row: int) -> float:
    return number(page.locator("#answers tr").nth(row).locator("td").last.inner_text())


def computed(page: Any) -> dict[str, tuple[str, float]]:
    """Return the numbers and the result of each formula on the page."""
    lines = page.locator(".computed div").evaluate_all(
        "all => all.map(line => [line.querySelector('dt').textContent, line.querySelector('dd').textContent])"
    )
    return {formula: (text, number(text.split("= ")[-1])) for formula, text in lines}


def test_each_phase_shows_its_formulas_with_the_numbers_that_it_computed(page: Any) -> None:
    page.get_by_role("button", name="Next phase").click()
    forward = computed(page)
    assert page.locator("[aria-current=step]").inner_text() == "Forward"
    assert len(forward) == 8
    text, y = forward["y = tanh z"]
    assert text.startswith("= tanh(")
    page.get_by_role("button", name="Next phase").click()
    text, error = computed(page)["E = (y* − y)²"]
    assert error == pytest.approx((0 - y) ** 2, abs=1e-3)
    page.get_by_role("button", name="Next phase").click()
    backward = computed(page)
    assert len(backward) == 1 + 1 + 7 + 3 + 9
    dy, dz = backward["∂E/∂y = 2 (y − y*)"][1], backward["∂E/∂z = ∂E/∂y (1 − y²)"][1]
    assert dy == pytest.approx(2 * y, abs=1e-3)
    assert dz == pytest.approx(dy * (1 - y * y), abs=1e-3)
    page.get_by_role("button", name="Next phase").click()
    text, now = computed(page)["c ← c − α ∂E/∂c"]
    before, rate, gradient = (number(part) for part in re.findall(r"[−-]?[\d.]+", text.replace("− 0.1", "0.1"))[:3])
    assert (rate, now) == (0.1, pytest.approx(before - rate * gradient, abs=1e-3))
    assert "row 0, 0 → 0, 1 updates" in page.locator("#progress").inner_text()


def test_the_run_learns_xor_and_draws_loss_and_surface(page: Any) -> None:
    page.get_by_label("Speed").fill("6")
    page.get_by_role("button", name="Play").click()
    page.locator("#curve text", has_text=re.compile(r"^\d{4,} epochs$")).wait_for()
    page.get_by_role("button", name="Pause").click()
    assert [round(output_of(page, row)) for row in range(4)] == [0, 1, 1, 0]
    points = page.locator("#curve polyline").get_attribute("points").split()
    assert len(points) > 100
    assert float(points[-1].split(",")[1]) > float(points[0].split(",")[1])  # the loss fell
    # The pixels at the rows have the colour of the answer: more blue than red near 1, the other way near 0.
    blue = page.evaluate(
        """() => [[0, 0], [0, 1], [1, 0], [1, 1]].map(([a, b]) => {
          const [x, y] = [Math.floor(64 * (a + 0.25) / 1.5), Math.floor(64 * (1.25 - b) / 1.5)];
          const [red, , blue] = document.getElementById("surface").getContext("2d").getImageData(x, y, 1, 1).data;
          return blue > red;
        })"""
    )
    assert blue == [False, True, True, False]


def test_the_keyboard_alone_steps_plays_and_resets(page: Any) -> None:
    page.locator("#play").focus()
    order = [page.evaluate("document.activeElement.id")]
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order == ["play", "phase", "step", "reset", "speed", "rate", "seed"]
    page.locator("#step").focus()
    page.keyboard.press("Enter")
    assert "1 updates" in page.locator("#progress").inner_text()
    start = output_of(page, 0)
    page.locator("#reset").focus()
    page.keyboard.press("Space")
    assert "random" in page.locator("#progress").inner_text()
    assert output_of(page, 0) != start


def test_a_seed_gives_the_same_run_and_another_one_another(page: Any) -> None:
    def run(seed: str) -> list[float]:
        page.get_by_label("Seed").fill(seed)
        for _ in range(5):
            page.get_by_role("button", name="Next step").click()
        return [output_of(page, row) for row in range(4)]

    first = run("3")
    assert run("4") != first
    assert run("3") == first


def test_the_page_fits_both_widths_and_themes(page: Any) -> None:
    for _ in range(3):
        page.get_by_role("button", name="Next phase").click()
    check_layout(page)
