"""The page of all models: what it shows of each, as text, and in a browser."""

from __future__ import annotations

import html
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_store.errors import StoreError
from model_store.evaluation import record
from model_store.evaluation.row_results import RowResults
from model_store.registry.store import open_store
from service.pages import overview, traffic
from service.pages.headline import headline
from service.pages.overview import Headlines, model_traffic, sparkline
from service.telemetry.traffic_history import History, Traffic, add_samples
from tests.service.conftest import MakeClient, break_version, move, penguins, price
from tests.service.pages.conftest import check_layout, in_browser
from tests.service.security.keys import line

BROWSER = {"Accept": "text/html"}


def accurate(accuracy: float) -> Any:
    classes = {"Adelie": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 60}}
    metrics = {"accuracy": accuracy, "of": "test rows", "rows": 100, "classes": classes}
    return replace(penguins(), training={"metrics": metrics})


def page_of(client: Any, path: str = "/") -> str:
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == 200
    return " ".join(html.unescape(answer.get_data(as_text=True)).split())


def test_a_model_has_its_versions_aliases_metric_and_interval(store: Any, make_client: MakeClient) -> None:
    for accuracy in (0.9, 0.95):
        store.publish("penguins", accurate(accuracy))
    move(store, "penguins", "default", 2)
    client = make_client(store)
    page = page_of(client)
    assert "serves version 2" in page
    assert "default → 2" in page
    assert "3 versions, newest 3" in page
    assert "90.0 %" in page
    assert "95 % interval 82.6 to 94.5 %" in page
    assert 'aria-label="accuracy of versions 2 to 3"' in page
    assert "<b>90.0 %</b> accuracy (95 % interval 82.6 to 94.5 %)" in page_of(client, "/models/penguins")


def test_a_refused_version_is_shown_with_the_reason(store: Any, make_client: MakeClient) -> None:
    store.publish("price", price(1))
    break_version(store, "price", 2)
    page = page_of(make_client(store))
    assert "serves version 1" in page
    assert "<strong>price/2</strong>" in page
    assert "models verify price/2" in page


def test_the_traffic_of_many_models_is_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 2,061 models added the samples up for each of them: 2.3 s, in which no prediction was answered."""
    added = []
    monkeypatch.setattr(traffic, "add_samples", lambda samples: added.append(1) or add_samples(samples))
    sample = {(f"m{i}", "1"): Traffic({"requests:200": 3 * i}) for i in range(50)}
    history = History([(0.0, sample)], [(90.0, 5.0, sample)])
    found = model_traffic(history, [], [f"m{i}" for i in range(50)], 100.0)
    assert len(added) == 1
    assert (found["m7"]["requests"], found["m7"]["requests_per_second"]) == (21, 4.2)


def test_traffic_is_shown_to_those_who_may_read_it(store: Any, make_client: MakeClient) -> None:
    client = make_client(store, admin_port=9001)
    for body in ([[3, 80]], [["x", 80]]):
        client.post("/models/price/predict", json={"instances": body})
    assert "failed in the last hour" not in page_of(client)
    found = client.get("/", headers=BROWSER, environ_overrides={"SERVER_PORT": "9001"}).text
    assert "<b>50.0 %</b> of 2 failed" in found


def test_an_empty_store_tells_how_to_train_the_first_model(tmp_path: Any, make_client: MakeClient) -> None:
    page = page_of(make_client(open_store(tmp_path / "none")))
    assert "train examples/penguins.toml --store" in page
    assert "train init data.csv --target COLUMN" in page


def test_hostile_names_are_text(store: Any, make_client: MakeClient) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e"
    store.publish("penguins", replace(penguins(), description=hostile))
    page = make_client(store).get("/", headers=BROWSER).get_data(as_text=True)
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202e" in page


def test_a_manifest_is_read_once_and_an_unreadable_one_again_after_a_minute(
    store: Any, make_client: MakeClient
) -> None:
    for accuracy in (0.9, 0.95):
        store.publish("penguins", accurate(accuracy))
    registry = make_client(store).application.extensions["registry"]
    read: list[int] = []
    now = 1000.0

    class Source:
        is_away = True

        def manifest(self, name: str, number: int) -> Any:
            read.append(number)
            if number == 1 or self.is_away:
                raise StoreError("away") if number == 2 else OSError("gone")
            return store.manifest(name, number)

    source = Source()
    headlines = Headlines(source, lambda: None, lambda: now)

    def shown() -> dict[int, str | None]:
        found = headlines.of_models([registry.snapshot.entries["penguins"]])
        return {number: value and value.text for (_, number), value in found.items()}

    for _ in range(2):
        assert shown() == {3: "95.0 %"}
    assert read == [1, 2]
    source.is_away = False
    now += 59
    assert shown() == {3: "95.0 %"}
    now += 1
    for _ in range(2):
        assert shown() == {2: "90.0 %", 3: "95.0 %"}
    now += 600
    shown()
    assert read == [1, 2, 1, 2, 1]


def test_records_in_memory_are_parsed_for_half_a_second_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """46 models with records of 100 kB made the first request take 1.1 s."""
    parsed: list[Any] = []
    monkeypatch.setattr(overview, "headline", parsed.append)
    served = SimpleNamespace(number=1, model=SimpleNamespace(training={}))
    entries: Any = [SimpleNamespace(name=f"m{i}", versions=(1,), pinned_versions=(served,)) for i in range(8)]
    headlines = Headlines(SimpleNamespace(), lambda: None, lambda: 0.2 * len(parsed))  # type: ignore[arg-type]
    assert [len(headlines.of_models(entries)) for _ in range(4)] == [3, 6, 8, 8]
    assert len(parsed) == 8


def test_a_headline_parses_no_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(record, "load_or_none", lambda _, section: read.append(section))
    headline({"metrics": {"rows": 1}, "diagnostics": {"calibration": {"bins": []}}})
    assert read
    assert not [section for section in read if "calibration" in str(section)]


def test_the_interval_of_an_rmse_covers_it() -> None:
    errors = np.abs(np.random.default_rng(0).normal(0, 2.0, (400, 1)))
    rmse = float(np.sqrt(np.mean(errors**2)))
    metrics = {"rows": 400, "of": "test rows", "targets": {"price": {"rmse": rmse, "mae": 1.0, "r2": 0.5}}}
    results = RowResults.of_targets("0" * 64, ["price"], errors).as_json()
    found = headline({"metrics": metrics, "held_out": results})
    assert found is not None
    assert found.title == "RMSE of price"
    low, high = (float(text) for text in found.interval.split(" to "))
    assert low < rmse < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(2 * 400), rel=0.3)


def test_a_sparkline_needs_two_versions() -> None:
    assert sparkline([(1, 0.5)], 1, "accuracy") is None
    found = sparkline([(1, 0.5), (2, 0.75), (3, 1.0)], 2, "accuracy")
    assert found is not None
    assert (found["points"], found["current"]) == ("4.0,28.0 60.0,16.0 116.0,4.0", (60.0, 16.0))


@pytest.mark.parametrize("_", [pytest.param(0, marks=in_browser, id="browser")])
def test_the_page_in_a_browser(open_page: Any, server: Any, _: int) -> None:
    page = open_page(server)
    check_layout(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("a", has_text="penguins").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/penguins")


@pytest.mark.parametrize("_", [pytest.param(0, marks=in_browser, id="browser")])
def test_a_key_is_kept_from_page_to_page_and_another_scope_is_asked_for(
    open_page: Any, own_server: Any, tmp_path: Any, _: int
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("app", "predict", "fp_predict") + line("grafana", "metrics", "fp_metrics"))
    page = open_page(own_server(SERVE_KEYS_FILE=str(keys)))
    page.get_by_label("API key").fill("fp_predict")
    page.get_by_role("button", name="Open").click()
    page.locator("h1", has_text="Models").wait_for()  # before that a link is followed without the key
    page.get_by_role("link", name="Reports").click()
    page.get_by_role("link", name="version 1").first.click()
    page.locator("h1", has_text="image").wait_for()
    page.get_by_role("link", name="Traffic").click()
    page.get_by_label("API key").fill("fp_metrics")
    page.get_by_role("button", name="Open").click()
    page.locator(".status", has_text="updated").wait_for()
    page.go_back()
    page.locator("h1", has_text="image").wait_for()
    assert page.url.endswith("/models/image/versions/1/report")
    assert page.context.cookies() == []
    page.complaints = [text for text in page.complaints if "401" not in text and "403" not in text]
