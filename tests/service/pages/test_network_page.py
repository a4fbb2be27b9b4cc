"""The page of a network in Chromium: weights, a row on its way through the layers, and the formula of a neuron."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.nn import Average, Conv2D, Flatten, Linear, MaxPool2D, ReLU, Sequential
from model_store.registry.store import open_store
from model_store.schema.columns import ArrayColumn, CategoryColumn
from model_store.schema.signature import ClassificationOutput, RegressionOutput, Signature
from tests.service.conftest import network, penguins, price
from tests.service.pages.conftest import OpenPage, check_layout, in_browser
from tests.service.security.keys import line
from tests.service.server.server_process import Server

pytestmark = list(in_browser)
HOSTILE = '<img src=x onerror="console.error(1)">'


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a convolution, a wide network, an ensemble, and a model with hostile texts."""
    folder, rng = tmp_path_factory.mktemp("networks"), np.random.default_rng(0)
    store = open_store(folder / "models")
    pixels = ArrayColumn("pixels", (6, 6), 0.0, 1.0, 0.0, 1.0)
    layers = [Conv2D((6, 6, 1), 3, rng=rng), MaxPool2D((4, 4, 3)), ReLU(), Flatten((2, 2, 3)), Linear(12, 1, rng=rng)]
    image = Signature((pixels,), RegressionOutput(("ink",), (0.0,), (1.0,)))
    wide = Sequential([Linear(2, 100, rng=rng), ReLU(), Linear(100, 90, rng=rng), Linear(90, 1, rng=rng)])
    hostile = penguins()
    columns = (CategoryColumn("island", (HOSTILE, "Dream", "Torgersen")), *hostile.signature.inputs[1:])
    signature = Signature(columns, ClassificationOutput("species", (HOSTILE, "Gentoo")))
    for name, model in {
        "penguins": penguins(),
        "image": replace(price(), network=Sequential(layers), signature=image),
        "wide": replace(price(), network=wide),
        "ensemble": replace(price(), network=Sequential([Average([network(2, 1, 1), network(2, 1, 2)])])),
        "hostile": replace(hostile, signature=signature, description=HOSTILE, golden=None),
    }.items():
        store.publish(name, model)
    server = Server(store, folder)
    yield server
    assert server.stop() == 0, server.log


def open_network(open_page: OpenPage, server: Server, name: str) -> Any:
    page = open_page(server, f"/models/{name}/network", {"width": 1280, "height": 900})
    page.locator("#layers .values").last.locator("*").first.wait_for()
    page.locator("#explanation h3").first.wait_for()
    return page


def test_each_weight_is_a_line_and_each_value_is_shown(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "penguins")
    items = page.locator("#layers > li")
    assert items.locator("h2").all_inner_texts() == [
        "1 Linear 6 → 5",
        "2 Tanh 5 → 5",
        "3 Linear 5 → 2",
        "4 Softmax 2 → 2",
    ]
    model = penguins().network
    for i in (0, 2):
        lines = items.nth(i).locator("line")
        weights = model.modules[i].weights
        assert lines.count() == weights.size
        classes = [found.split()[1] for found in lines.evaluate_all("all => all.map(one => one.getAttribute('class'))")]
        assert classes == ["negative" if weight < 0 else "positive" for weight in weights.ravel()]
    assert items.nth(3).locator(".cells span").all_inner_texts()[0].startswith("Adelie\n")
    assert page.locator("#inputs .cells span").count() == 6


def test_a_change_of_the_row_passes_through_the_layers(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "penguins")
    cells = page.locator("#layers > li").nth(1).locator(".cells")
    before = cells.inner_text()
    with page.expect_response("**/activations"):
        page.get_by_label("mass").fill("5500")
    page.wait_for_timeout(100)
    assert cells.inner_text() != before
    with page.expect_response("**/activations"):
        page.get_by_label("mass").fill("4200.5")
    page.wait_for_timeout(100)
    assert cells.inner_text() == before


def test_the_keyboard_chooses_a_neuron_and_its_formula_has_the_numbers(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "penguins")
    page.locator("#layer").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "neuron"
    with page.expect_response("**/activations") as answer:
        page.keyboard.press("ArrowUp")
    linear, tanh = answer.value.json()["neuron"]
    page.locator("#explanation h3", has_text="1 Linear, neuron 2").wait_for()
    shown = page.locator("#explanation").inner_text()
    assert "y = f(x) = tanh x" in shown
    assert tanh["numbers"] in shown
    assert page.locator("#explanation .terms tbody tr").count() == 6 + 2
    assert f"{linear['value']:.4f}".replace("-", "−") in page.locator("#explanation .current").inner_text()
    assert page.locator("#layers line.chosen").count() == 6


def test_a_click_on_a_value_chooses_its_neuron(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "penguins")
    page.locator("#layers > li").nth(3).locator(".cells span").nth(1).click()
    page.locator("#explanation h3", has_text="4 Softmax, Gentoo").wait_for()
    assert "e^(" in page.locator("#explanation .numbers").inner_text()


def test_wide_layers_are_heat_maps_that_say_what_a_cell_is(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "wide")
    caption = page.locator("#layers > li").nth(2).locator("figcaption").first.inner_text()
    assert "A cell is the largest by size of a block of 2 × 2 numbers." in caption
    assert "The largest:" in caption
    check_layout(page)


def test_kernels_and_channels_of_a_convolution_are_pictures(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "image")
    conv = page.locator("#layers > li").first
    assert conv.locator(".kernels canvas").count() == 3
    assert conv.locator(".values canvas").count() == 3
    assert "The 3 kernels of 3 × 3 × 1" in conv.inner_text()
    conv.locator(".values canvas").nth(1).click(position={"x": 80, "y": 5})
    page.locator("#explanation .note", has_text="kernel 2, row 1, column 4").wait_for()
    check_layout(page)


def test_the_networks_of_an_ensemble_are_shown_one_at_a_time(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "ensemble")
    assert page.locator("#layers h2").all_inner_texts()[-1].startswith("4 Average")
    with page.expect_response("**/activations"):
        page.get_by_label("rooms").fill("3")
    page.wait_for_timeout(100)
    first = page.locator("#layers > li").nth(2).locator(".values").inner_text()
    with page.expect_response("**/activations"):
        page.get_by_label("Network of the ensemble").select_option("1")
    page.wait_for_timeout(100)
    assert page.locator("#layers > li").nth(2).locator(".values").inner_text() != first


def test_hostile_texts_are_text(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "hostile")
    assert HOSTILE in page.locator("#summary").inner_text()
    assert HOSTILE in page.locator("#inputs").inner_text()
    assert page.locator("main img").count() == 0


def test_faults_of_a_row_are_shown_with_their_location(open_page: OpenPage, networks: Server) -> None:
    page = open_network(open_page, networks, "penguins")
    page.get_by_label("mass").fill("heavy")
    page.locator("#answer .faults").wait_for()
    assert "instances.0.mass" in page.locator("#answer").inner_text()
    page.complaints[:] = [text for text in page.complaints if "422" not in text]


def test_the_page_fits_both_widths_and_themes(open_page: OpenPage, networks: Server) -> None:
    check_layout(open_network(open_page, networks, "penguins"))


def test_the_page_opens_with_a_key(open_page: OpenPage, own_server: Any, tmp_path: Path) -> None:

    keys = tmp_path / "keys"
    keys.write_text(line("browser", "predict", "fp_predict"))
    page = open_page(own_server(SERVE_KEYS_FILE=str(keys)), "/models/penguins/network")
    page.get_by_label("API key").fill("fp_predict")
    page.get_by_role("button", name="Open").click()
    page.locator("#layers line").first.wait_for()
    page.get_by_role("link", name="XOR, step by step").click()
    page.locator("#xor").wait_for()
    page.complaints[:] = [text for text in page.complaints if "401" not in text]
