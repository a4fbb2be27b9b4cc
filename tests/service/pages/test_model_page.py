"""The page of a model in a browser: live answers, drawings, tables, the decision surface, versions and aliases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal
from model_store.artifact.model import Model
from model_store.registry.store import open_store
from model_store.schema.columns import CategoryColumn, NumberColumn
from model_store.schema.signature import ClassificationOutput, Signature
from tests.service.conftest import network, penguins, price
from tests.service.pages.conftest import DESK, PHONE, OpenPage, check_layout, in_browser
from tests.service.security.keys import KEY_OF, line
from tests.service.server.server_process import ROOT, Server, free_port, until

pytestmark = [*in_browser]

SHAPES: dict[str, list[list[list[float]]]] = json.loads((ROOT / "tests/fixtures/drawn_shapes.json").read_text())
NAME_OF = (
    "(one) => one.type === 'radio' ? one.name : one.id || one.getAttribute('aria-label') || one.textContent.trim()"
)
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the examples XOR, penguins and digits. Operators may move aliases."""
    folder = tmp_path_factory.mktemp("trained")
    for job in ("xor", "penguins", "digits"):
        command = [sys.executable, "-m", "training", f"examples/{job}.toml", "--store", str(folder / "models")]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    command += ["--set", "train.epochs=3"]
    command[3] = "examples/penguins.toml"
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    store = open_store(folder / "models")
    scores = np.linspace(0.1, 0.9, 19, dtype=np.float32)[None]
    store.publish("price", replace(price(), answers=Answers(conformal=Conformal("absolute", scores))))
    output = ClassificationOutput("species", ("Adelie", "Gentoo"), threshold=0.25)
    sure = replace(penguins(), answers=Answers(conformal=Conformal("aps", scores)))
    store.publish("sure", replace(sure, signature=replace(sure.signature, output=output)))
    server = Server(store, folder, SERVE_WORKERS="1")
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def label(page: Any) -> str:
    found: str = page.locator("#answer .answer").inner_text()
    return found


def is_answered(page: Any) -> None:
    page.locator(".status", has_text="version").wait_for()


def numbers(page: Any) -> list[float]:
    return [float(text) for text in re.findall(r"[0-9.]+", page.locator("#answer").inner_text())]


def answer(page: Any, text: str) -> None:
    """Wait until the page shows this label."""
    page.locator("#answer .answer", has_text=re.compile(f"^{text}$")).wait_for(timeout=5000)


def draw(page: Any, strokes: list[list[list[float]]]) -> None:
    box = page.locator("canvas.pad").bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=4)
        page.mouse.up()


@pytest.mark.parametrize("name", ["xor", "penguins", "digits"])
def test_the_page_fits_phones_and_has_no_serious_fault_of_accessibility(
    open_page: OpenPage, trained: Server, name: str
) -> None:
    page = open_page(trained, f"/models/{name}")
    is_answered(page)
    page.locator("details.request summary").click()
    page.locator("#aliases h3").wait_for()
    check_layout(page)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawn_digit_is_recognized(open_page: OpenPage, trained: Server, shape: str) -> None:
    page = open_page(trained, "/models/digits", DESK)
    is_answered(page)
    draw(page, SHAPES[shape])
    answer(page, shape[0])
    sent = json.loads(page.locator("#row").input_value())
    assert len(sent) == 8
    assert max(map(max, sent)) > 8
    assert sum(sent[0]) > 0  # it fills the image from its first to its last row, as the training images do
    assert sum(sent[-1]) > 0


def test_the_keyboard_draws(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/digits", DESK)
    is_answered(page)
    page.locator("canvas.pad").focus()
    for key in ("ArrowUp",) * 10:
        page.keyboard.press(key)
    page.keyboard.press(" ")
    for key in ("ArrowDown",) * 20:
        page.keyboard.press(key)
    page.keyboard.press(" ")
    answer(page, "1")


def test_a_penguins_flipper_moves_the_answer(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/penguins/versions/1", DESK)
    is_answered(page)
    slider = page.get_by_label("flipper_length_mm, slider")
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 12, middle)
    page.mouse.down()
    shares = []
    for step in range(12):
        page.mouse.move(box["x"] + 12 + step / 12 * (box["width"] - 24), middle)
        page.wait_for_timeout(60)
        shares.append(page.locator("#answer .share").last.inner_text())
    page.mouse.up()
    assert len(set(shares)) > 3, shares  # while the slider moves
    assert page.locator(".field.number.is-outside").count() == 1  # its end is outside the training rows
    page.get_by_label("flipper_length_mm", exact=True).fill("200")
    assert page.locator(".field.number.is-outside").count() == 0


def test_an_answer_is_explained_by_column_and_the_bars_follow(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/penguins/versions/1")
    is_answered(page)
    shown = page.locator("#explanation")
    shown.locator(".signed .bar").first.wait_for()
    assert sorted(shown.locator("b").all_inner_texts()) == [
        *("bill_depth_mm", "bill_length_mm", "body_mass_g", "flipper_length_mm", "island", "sex")
    ]
    assert shown.locator(".why").inner_text() == f"Why {label(page)}"
    before = shown.inner_text()
    page.get_by_label("flipper_length_mm", exact=True).fill("229")
    shown.locator(".note", has_not_text=before.splitlines()[1]).wait_for()
    check_layout(page)
    page.get_by_label("Explain the answer").uncheck()
    shown.locator(".signed").wait_for(state="detached")


def test_an_interval_is_on_its_axis_at_the_level_chosen(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/price", DESK)
    shown = page.locator("#answer .ranges")
    shown.wait_for()
    assert "In 90 % of all cases" in shown.inner_text()
    value = numbers(page)[0]
    low, high = map(float, re.findall(r"[0-9.]+", shown.locator("b").inner_text()))
    assert low < value < high
    assert shown.locator("svg.interval circle").count() == 1
    choice = page.get_by_label("Interval")
    assert choice.locator("option").all_inner_texts() == ["off", "50 %", "80 %", "90 %", "95 %"]  # of 19 rows
    choice.select_option("50 %")
    shown.locator("p", has_text="In 50 %").wait_for()
    check_layout(page)
    choice.select_option("off")
    shown.wait_for(state="detached")


def test_a_set_of_labels_is_chips_and_the_threshold_is_named(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/sure", PHONE)
    chips = page.locator("#answer .chips li")
    chips.first.wait_for()
    assert label(page) == chips.first.inner_text()
    assert page.locator("#answer .threshold").inner_text() == "The answer is Gentoo from 25 % on."
    check_layout(page)


def test_an_image_is_explained_by_a_map(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/digits")
    is_answered(page)
    page.get_by_label("Explain the answer").check()
    canvas = page.locator("#explanation canvas")
    canvas.wait_for()
    assert canvas.evaluate("(one) => [one.width, one.height]") == [8, 8]
    pixels = canvas.evaluate("(one) => [...one.getContext('2d').getImageData(0, 0, 8, 8).data]")
    assert max(pixels[3::4]) == 255
    check_layout(page)


def test_a_slider_has_one_request_in_flight_and_the_newest_value_wins(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/xor", DESK)
    is_answered(page)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    page.evaluate("""() => {
        const input = document.querySelector("input[type=range]");
        for (let i = 0; i <= 100; i++) { input.value = i / 100; input.dispatchEvent(new Event("input")); }
    }""")
    page.wait_for_timeout(500)
    assert len(sent) == 2
    assert sent[-1].post_data_json["instances"][0]["a"] == 1
    assert float(label(page).split()[0]) > 0.8


def test_a_value_that_a_busy_service_refused_is_sent_again(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/xor", DESK)
    is_answered(page)
    error = {"error": {"code": "overloaded", "message": "busy", "faults": []}, "request_id": "1"}
    refused: list[Any] = []

    def refuse(route: Any) -> None:
        refused.append(route.request)
        route.fulfill(status=503, headers={"Retry-After": "1"}, json=error) if len(refused) < 3 else route.continue_()

    page.route("**/predict?*", refuse)
    page.get_by_label("a", exact=True).fill("1")
    page.locator("#problems", has_text="busy").wait_for()
    is_answered(page)
    assert [request.post_data_json["instances"][0]["a"] for request in refused] == [1, 1, 1]
    page.complaints = [text for text in page.complaints if "503" not in text]


def test_xor_has_its_decision_surface(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/xor", DESK)
    page.locator(".surface[data-ready]").wait_for()
    pixel = """([a, b]) => {
        const canvas = document.querySelector(".plot canvas");
        const x = Math.round((a + 0.15) / 1.3 * (canvas.width - 1));
        const y = Math.round((1 - (b + 0.15) / 1.3) * (canvas.height - 1));
        return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    }"""
    red = {(a, b): page.evaluate(pixel, [a, b])[0] for a in (0, 1) for b in (0, 1)}
    assert min(red[0, 1], red[1, 0]) > 200  # the colour of 1
    assert max(red[0, 0], red[1, 1]) < 180
    box = page.locator(".plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 1.15 / 1.3, box["y"] + box["height"] * 1.15 / 1.3)
    assert abs(float(page.get_by_label("a", exact=True).input_value()) - 1) < 0.02
    until(lambda: float(label(page).split()[0]) > 0.8)


@pytest.mark.parametrize("name", ["xor", "penguins", "digits"])
def test_the_browser_computes_the_services_answers_without_the_service(
    open_page: OpenPage, trained: Server, name: str
) -> None:
    page = open_page(trained, f"/models/{name}/versions/1", DESK)
    is_answered(page)
    served = numbers(page)
    page.get_by_label("Compute in this browser").check()
    page.locator(".status", has_text="computed in this browser").wait_for()
    page.context.set_offline(True)
    assert numbers(page) == pytest.approx(served, rel=1e-3, abs=1e-6)


def test_a_service_that_is_gone_is_replaced_by_the_browser(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/xor", DESK)
    is_answered(page)
    switch = page.get_by_label("Compute in this browser")
    switch.check()
    page.get_by_text("is in this page").wait_for()
    switch.uncheck()
    page.context.set_offline(True)
    page.get_by_label("a", exact=True).fill("1")
    page.get_by_text("the service does not answer: computed in this browser").wait_for()
    assert float(label(page).split()[0]) > 0.8
    page.complaints.clear()


def test_the_request_as_code_gives_the_answer_of_the_page(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/penguins", DESK)
    is_answered(page)
    page.locator("details.request summary").click()
    command = page.locator("#snippet").inner_text()
    found = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)  # noqa: S602
    assert json.loads(found.stdout)["predictions"][0]["label"] == label(page)
    page.get_by_role("radio", name="Python").check()
    program = page.locator("#snippet").inner_text()
    compile(program, "snippet", "exec")
    assert f'"http://127.0.0.1:{trained.port}/models/penguins/predict"' in program
    page.get_by_role("radio", name="JavaScript").check()
    assert page.locator("#snippet").inner_text().startswith("const response = await fetch(")


def test_a_csv_file_is_previewed_and_answered_in_pieces(open_page: OpenPage, trained: Server, tmp_path: Path) -> None:
    page = open_page(trained, "/models/penguins/versions/1", DESK)
    rows = (ROOT / "examples/penguins.csv").read_text().splitlines()
    table = tmp_path / "many.csv"
    table.write_text("\n".join([rows[0], *rows[1:] * 60]) + "\n")
    page.locator("input[type=file]").set_input_files(str(table))
    page.get_by_text(f"many.csv: {60 * (len(rows) - 1):,} rows").wait_for()
    page.get_by_role("button", name="Predict all rows").click()
    link = page.get_by_role("link", name="Download the answers")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    answers = Path(download.value.path()).read_text().splitlines()
    assert len(answers) == 1 + 60 * (len(rows) - 1)
    species = rows[0].split(",").index("species")
    right = [answer.split(",")[species] == answer.split(",")[-2] for answer in answers[1:]]
    assert sum(right) / len(right) > 0.95
    check_layout(page)


def test_a_faulty_cell_of_a_table_is_named(open_page: OpenPage, trained: Server, tmp_path: Path) -> None:
    page = open_page(trained, "/models/xor", DESK)
    table = tmp_path / "faulty.csv"
    table.write_text(f'a,b\n0,1\n"{HOSTILE}",1\n', encoding="utf-8")
    page.locator("input[type=file]").set_input_files(str(table))
    assert page.locator(".table-result td").nth(2).inner_text() == "<img src=x onerror=alert(1)>\\u202e"
    page.get_by_role("button", name="Predict all rows").click()
    page.locator(".table-result .faults").wait_for()
    page.complaints[:] = [complaint for complaint in page.complaints if "422" not in complaint]
    assert "a" in page.locator(".table-result .faults").inner_text()
    assert page.locator("img").count() == 1  # the icon


def test_two_versions_are_compared_side_by_side(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/penguins", DESK)
    page.get_by_role("button", name="Compare").click()
    page.locator("#comparison").wait_for()
    assert page.locator("#comparison .sides svg").count() == 4
    assert page.get_by_role("row", name="accuracy").get_by_role("cell").count() == 2
    assert "train.epochs" in page.locator("#comparison").inner_text()
    check_layout(page)


def test_the_keyboard_reaches_everything(open_page: OpenPage, trained: Server) -> None:
    page = open_page(trained, "/models/penguins", DESK)
    is_answered(page)
    page.locator("#aliases h3").wait_for()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"({NAME_OF})(document.activeElement)"))
    focusable = page.evaluate(
        f"""[...document.querySelectorAll("a, button, input, select, summary")]
            .filter((one) => one.checkVisibility()).map({NAME_OF})"""
    )
    assert set(focusable) <= reached
    page.get_by_label("flipper_length_mm, slider").focus()
    before = page.get_by_label("flipper_length_mm", exact=True).input_value()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("flipper_length_mm", exact=True).input_value() != before


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Server]:
    """A server of a model whose texts are markup and direction marks, with two versions and an alias."""
    columns = (
        CategoryColumn(f"kind {HOSTILE}", (HOSTILE, "</script><script>alert(2)</script>")),
        NumberColumn(f"size {HOSTILE}", 0.0, 1.0, statistics={"min": 0.0, "mean": 1.0, "max": 2.0}),
    )
    signature = Signature(columns, ClassificationOutput(HOSTILE, (HOSTILE, "b")))
    metrics = {"of": HOSTILE, "rows": 2, "accuracy": 0.5, "classes": {}, "job": {"train": {"x": HOSTILE}}}
    training = {"metrics": metrics, "job": {"train": {HOSTILE: HOSTILE}}}
    store = open_store(tmp_path / "models")
    for seed in (0, 1):
        store.publish(
            "hostile", Model(network(3, 2, seed, softmax=True), signature, f"Description {HOSTILE}", training)
        )
    store.set_alias("hostile", "default", 2, who=HOSTILE, why=HOSTILE, when=datetime.now(UTC))
    server = Server(store, tmp_path, SERVE_WORKERS="1")
    yield server
    assert server.stop() == 0, server.log


def test_hostile_texts_are_shown_as_text(open_page: OpenPage, hostile: Server) -> None:
    page = open_page(hostile, "/models/hostile", DESK)
    is_answered(page)
    page.locator("summary", has_text="History").click()
    page.locator("details.request summary").click()
    page.get_by_role("button", name="Compare").click()
    page.locator("#comparison").wait_for()
    assert page.locator("img").count() == 1  # the icon
    assert page.locator("main script").count() == 1  # the data of the form
    shown = page.locator("main").inner_text()
    assert "<img src=x onerror=alert(1)>" in page.locator("#answer").inner_text()
    assert shown.count("<img src=x onerror=alert(1)>") >= 8
    assert "\u202e" not in shown  # it is an escape
    check_layout(page)


# Operators ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def operated(store: Any, tmp_path: Path) -> Iterator[Server]:
    """A server with keys, whose admin listener moves aliases; penguins has two versions."""
    store.publish("penguins", penguins(1))
    keys = tmp_path / "keys"
    keys.write_text(line("browser", "predict", KEY_OF["predict"]) + line("ada", "admin,predict", KEY_OF["admin"]))
    port = str(free_port())
    server = Server(
        store, tmp_path, SERVE_WORKERS="1", SERVE_KEYS_FILE=str(keys), SERVE_ADMIN="true", SERVE_ADMIN_PORT=port
    )
    server.admin_port = int(port)  # type: ignore[attr-defined]
    yield server
    assert server.stop() == 0, server.log


def give(page: Any, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Open").click()
    page.locator("#aliases h3").wait_for()


def test_operators_move_protect_and_roll_back_aliases_with_a_reason(
    open_page: OpenPage, operated: Server, store: Any
) -> None:
    page = open_page(f"http://127.0.0.1:{operated.admin_port}", "/models/penguins", DESK)  # type: ignore[attr-defined]
    give(page, KEY_OF["predict"])
    page.complaints.clear()  # the 401 before the key
    page.get_by_role("button", name="Move").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Version").select_option("1")
    assert "Requests without a version will get version 1 in place of 2." in dialog.inner_text()
    dialog.get_by_role("button", name="Move default").click()
    assert store.aliases("penguins") == {}  # a reason is required
    assert not dialog.get_by_label("API key with the scope admin").is_visible()
    dialog.get_by_label("Why").fill("fewer mistakes")
    dialog.get_by_role("button", name="Move default").click()
    dialog.get_by_label("API key with the scope admin").fill(KEY_OF["admin"])
    page.complaints.clear()  # the 403 before that key
    check_layout(page)
    dialog.get_by_role("button", name="Move default").click()
    page.locator(".alias-line", has_text="version 1").wait_for()
    last = store.history("penguins")[-1]
    assert (last.version, last.who, last.why) == (1, "ada", "fewer mistakes")
    for button, reason in (("Roll back", "it was worse"), ("Protect", "on sale")):
        page.get_by_role("button", name=button, exact=True).click()
        dialog.get_by_label("Why").fill(reason)
        dialog.get_by_role("button").first.click()
        dialog.wait_for(state="detached")
    assert [(one.version, one.protected) for one in store.history("penguins")[-2:]] == [(2, False), (2, True)]
    page.get_by_role("button", name="Promote").click()
    dialog.get_by_label("Version").select_option("1")
    dialog.get_by_label("Gates").fill("accuracy>0.99")
    dialog.get_by_label("Why").fill("x")
    dialog.get_by_role("button").first.click()
    dialog.locator(".faults").wait_for()
    page.complaints.clear()  # 409
    assert "0.975 against 0.99" in dialog.inner_text()
    dialog.get_by_label("Gates").fill("accuracy>0.9")
    dialog.get_by_role("button").first.click()
    dialog.wait_for(state="detached")
    assert (store.history("penguins")[-1].version, store.history("penguins")[-1].who) == (1, "ada")
    page.get_by_role("button", name="Move").click()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.locator("summary", has_text="History").click()
    assert "on sale" in page.locator(".alias-box").inner_text()


def test_the_main_listener_moves_no_alias(open_page: OpenPage, operated: Server) -> None:
    page = open_page(operated, "/models/penguins", PHONE)
    give(page, KEY_OF["admin"])
    page.complaints.clear()
    assert page.get_by_role("button", name="Move").count() == 0
    page.get_by_label("Compute in this browser").check()  # with a key, too
    page.get_by_text("is in this page").wait_for()
