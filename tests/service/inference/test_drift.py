"""The drift index rises when recent rows differ from the training data."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifact.model import Model
from model_store.nn import Linear, Sequential
from model_store.registry.store import open_store
from model_store.schema.columns.category import MAX_CATEGORY_BINS
from model_store.schema.signature import ArrayColumn, CategoryColumn, NumberColumn, RegressionOutput, Signature
from service.inference import drift
from service.inference.drift import column_bins, drift_index, population_stability_index
from service.telemetry.mmap_counters import MmapCounters
from tests.service.conftest import MakeClient
from tests.service.routes.test_api import figures
from training.data.fitting.columns import fit_array, fit_category, fit_number
from training.data.fitting.statistics import ArrayStatistics, CategoryStatistics, NumberStatistics

RNG = np.random.default_rng(7)


def rooms(count: int) -> np.ndarray:
    return RNG.integers(1, 6, count).astype(np.float64)


def area(count: int) -> np.ndarray:
    return RNG.normal(80, 20, count)


def town(count: int, shares: tuple[float, ...] = (0.6, 0.3, 0.1)) -> np.ndarray:
    return RNG.choice(np.array(["Bern", "Chur", "Genf"], object), count, p=shares)


def houses(*columns: NumberColumn | CategoryColumn | ArrayColumn, dtype: str = "float32") -> Model:
    signature = Signature(columns, RegressionOutput(("price",), (0.0,), (1.0,)))
    return Model(Sequential([Linear(signature.width, 1, dtype=dtype)]), signature)


def trained() -> Model:
    columns = {"rooms": rooms(2000), "area": area(2000)}
    numbers = [
        fit_number(name, NumberStatistics.from_values(values), "impute", True) for name, values in columns.items()
    ]
    return houses(*numbers, fit_category("town", CategoryStatistics.from_values(town(2000)), "impute", "bucket"))


@pytest.fixture
def ask(tmp_path, make_client: MakeClient, monkeypatch):
    """Send rows to a service of houses, and return the indices at /metrics."""
    monkeypatch.setattr(drift, "MAX_SAMPLE_ROWS", 100_000)
    store = open_store(tmp_path / "houses")
    store.publish("houses", trained())
    client = make_client(store)

    def ask(*columns: Any) -> dict[str, float]:
        rows = [list(row) for row in zip(*(np.asarray(column).tolist() for column in columns), strict=True)]
        assert client.post("/predict", json={"instances": rows}).status_code == 200
        found = figures(client)
        return {
            dict(key[1:])["column"]: value for key, value in found.items() if key[0] == "forward_pass_input_drift"
        } | {"rows": found["forward_pass_input_drift_rows", ("model", "houses"), ("version", "1")]}

    return ask


def test_rows_like_the_training_data_have_an_index_near_zero(ask):
    found = ask(rooms(3000), area(3000), town(3000))
    assert found.pop("rows") == 3000
    assert found.keys() == {"rooms", "area", "town"}
    assert max(found.values()) < 0.02


def test_shifted_column_has_a_high_index(ask):
    found = ask(rooms(3000), area(3000) + 20, town(3000))
    assert found["area"] > 0.25
    assert max(found["rooms"], found["town"]) < 0.02
    found = ask(rooms(9000), area(9000), town(9000, (0.2, 0.3, 0.5)))
    assert found["town"] > 0.25


def test_values_above_the_training_maximum_have_their_own_bin(ask):
    found = ask(np.where(np.arange(3000) % 10 == 0, 50, rooms(3000)), area(3000), town(3000))
    assert found["rooms"] > 0.25


def test_unknown_categories_have_their_own_bin(ask):
    found = ask(rooms(3000), area(3000), np.where(np.arange(3000) % 5 == 0, "Rom", town(3000)))
    assert found["town"] > 0.25


def test_too_few_rows_have_no_index(ask):
    assert ask(rooms(100), area(100), town(100)) == {"rows": 100}


def test_old_rows_are_forgotten(ask):
    ask(rooms(9000), area(9000) + 40, town(9000))
    for _ in range(4):
        found = ask(rooms(9000), area(9000), town(9000))
    assert found["area"] < 0.05
    assert found["rows"] <= drift.WINDOW_ROWS


def test_only_a_sample_of_the_rows_is_counted(ask, monkeypatch):
    monkeypatch.setattr(drift, "MAX_SAMPLE_ROWS", 256)  # from the second call on: `ask` has raised the first limit
    monkeypatch.setattr(drift, "clock", lambda: 5.0)  # within one second
    found = [ask(rooms(1000), area(1000), town(1000))["rows"] for _ in range(3)]
    assert found == [1000, 1256, 1512]  # each scrape allows another sample


def test_sampled_rows_take_little_memory_even_if_they_are_large(make_client, tmp_path):
    """A sample of 256 x 256 colour images would be 200 MB; here 12 MB."""
    images = RNG.normal(size=(200, 64, 64, 3)).astype(np.float32)
    store = open_store(tmp_path / "store")
    store.publish("houses", houses(fit_array("image", ArrayStatistics.from_values(images), False)))
    registry = make_client(store).application.extensions["registry"]
    monitor = drift.DriftMonitor(MmapCounters(tmp_path), lambda _: True)
    monitor.window(registry.find("houses"))._next_flush = drift.clock() + 60  # no flush meanwhile
    tracemalloc.start()
    try:
        for _ in range(20):
            monitor.add(registry.find("houses"), images.reshape(len(images), -1))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1_000_000 < kept < 2 * drift.MAX_SAMPLE_BYTES


def test_concurrent_threads_share_one_window_of_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each thread would write the index of its own rows only."""
    entered = threading.Barrier(2)

    class Slow(drift.DriftWindow):
        def __init__(self, *of: Any) -> None:
            with suppress(threading.BrokenBarrierError):
                entered.wait(0.2)
            super().__init__(*of)

    class Version(SimpleNamespace):
        __hash__ = object.__hash__

    monkeypatch.setattr(drift, "DriftWindow", Slow)
    monitor, version = (
        drift.DriftMonitor(MmapCounters(), lambda _: True),
        Version(name="houses", number=1, digest="", model=trained()),
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(monitor.window, [version, version])
    assert first is second


def test_requests_for_old_versions_leave_no_cells(make_client: MakeClient, tmp_path) -> None:
    """Cells stay until the process ends: 12 old versions with long names of columns took 590 MB."""
    store = open_store(tmp_path / "houses")
    for _ in range(6):
        store.publish("houses", trained())
    client = make_client(store)
    metrics = client.application.extensions["recorder"].metrics
    row = {"instances": [[3.0, 80.0, "Bern"]]}
    assert client.post("/predict", json=row).status_code == 200
    cells = len(metrics.counters.internal_gauges())
    assert cells > 0
    for version in range(1, 6):
        assert client.post(f"/models/houses/versions/{version}/predict", json=row).status_code == 200
        assert len(metrics.counters.internal_gauges()) == cells


def test_cells_of_versions_that_are_no_longer_monitored_are_freed(tmp_path, make_client: MakeClient) -> None:
    """A service whose default version is replaced every hour would need more and more memory."""
    store = open_store(tmp_path / "houses")
    for name in ("a", "b"):
        store.publish(name, trained())
    registry = make_client(store).application.extensions["registry"]
    a, b = registry.find("a"), registry.find("b")
    counters, monitored = MmapCounters(), {a, b}
    monitor = drift.DriftMonitor(counters, lambda served: served in monitored)
    rows = a.model.encode([[3.0, 80.0, "Bern"]] * 5)
    for served in (a, b):
        monitor.add(served, rows)
    keys = {served: {key for keys in monitor.window(served).keys for key in keys} for served in (a, b)}
    assert counters.internal_gauges().keys() == keys[a] | keys[b]
    stale = monitor.window(a)
    monitored.remove(a)
    monitor.flush()
    stale.add(rows)
    stale.flush()  # as a request that is still running may
    assert counters.internal_gauges().keys() == keys[b]
    assert sum(counters.internal_gauges().values()) == 3 * 5
    monitor.window(b)._next_flush = 0.0
    monitor.add(b, rows)
    assert sum(counters.internal_gauges().values()) == 3 * 10
    monitored.add(a)
    monitor.add(a, rows)
    assert sum(counters.internal_gauges().values()) == 3 * 15


def test_keys_of_cells_are_short_and_differ_by_version() -> None:
    long = "é" * 1000
    model = houses(*(NumberColumn(f"{i}{long}", statistics={"deciles": DECILES, "counts": [1] * 11}) for i in range(2)))
    versions = [(name, number, digest) for name in ("a", "b") for number in (1, 2) for digest in ("d", "e")]
    keys = [
        key
        for name, number, digest in versions
        for column in drift.DriftWindow(
            MmapCounters(), SimpleNamespace(name=name, number=number, digest=digest, model=model)
        ).keys
        for key in column
    ]
    assert max(map(len, keys)) <= 24
    assert len(set(keys)) == len(keys) == len(versions) * 2 * 12


def test_missing_values_of_training_are_expected_in_the_fill_values_bin():
    values = np.where(np.arange(1000) % 2 == 0, np.nan, np.arange(1000.0))
    bins = next(column_bins(houses(fit_number("a", NumberStatistics.from_values(values), "impute", True))))
    assert bins.expected.sum() == 1000
    assert bins.expected.max() > 500


def test_images_are_monitored_by_their_means():
    model = houses(
        fit_array("pixels", ArrayStatistics.from_values(RNG.integers(0, 256, (500, 3, 3)).astype(np.uint8)), True)
    )
    bins = next(column_bins(model))
    dark = model.encode([np.full((3, 3), 5).tolist()] * 4)
    assert bins.count(dark).tolist() == [4, *[0] * (len(bins.expected) - 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_rows_fall_into_the_bins_counted_in_training(dtype):
    values = np.concatenate([RNG.normal(0.1, 0.3, 500), np.full(500, 0.1)])
    model = houses(fit_number("a", NumberStatistics.from_values(values), "impute", True), dtype=dtype)
    bins = next(column_bins(model))
    found = bins.count(model.encode([[value] for value in values.tolist()]))
    assert abs(found - bins.expected).sum() <= 2  # two numbers that are equal in float32


def test_frequent_categories_have_bins_and_the_others_share_one():
    names = [f"t{i}" for i in range(100) for _ in range(100 - i)]
    model = houses(fit_category("town", CategoryStatistics.from_values(np.array(names, object)), "impute", "refuse"))
    bins = next(column_bins(model))
    assert len(bins.expected) == MAX_CATEGORY_BINS + 1
    assert bins.expected.sum() == len(names)
    assert bins.count(model.encode([["t0"], ["t99"], ["t98"]])).tolist() == [1, *[0] * 19, 2]


DECILES = [float(i) for i in range(11)]


@pytest.mark.parametrize(
    "statistics",
    [
        {},
        {"deciles": DECILES},
        {"deciles": DECILES, "counts": [1] * 10},
        {"deciles": DECILES, "counts": [0] * 11},
        {"deciles": DECILES, "counts": [-1] * 11},
        {"deciles": DECILES, "counts": ["1"] * 11},
        {"deciles": [None] * 11, "counts": [1] * 11},
        {"deciles": [1e308] * 11, "counts": [1]},
        {"deciles": [], "counts": []},
        {"deciles": 3, "counts": 3},
        {"means": 3, "frequencies": [1]},
        {"frequencies": {"x": "many"}},
        {"frequencies": {"x": -1}},
        {"frequencies": {"z": 5}},
    ],
)
def test_columns_with_invalid_statistics_are_not_monitored(statistics):
    for column in (NumberColumn("a", statistics=statistics), CategoryColumn("a", ("x", "y"), statistics=statistics)):
        assert list(column_bins(houses(column))) == []
    assert list(column_bins(houses(ArrayColumn("a", (2,), statistics=statistics)))) == []


def test_index_equals_the_formula():
    found = population_stability_index(np.array([9.5, 89.5]), np.array([49.5, 49.5]))
    p, q = np.array([0.1, 0.9]), np.array([0.5, 0.5])
    assert found == pytest.approx(((q - p) * np.log(q / p)).sum())


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12), st.data())
def test_index_is_finite_and_not_negative(expected, data):
    found = data.draw(st.lists(st.integers(0, 1000), min_size=len(expected), max_size=len(expected)))
    index = population_stability_index(np.array(expected, float), np.array(found, float))
    assert np.isfinite(index)
    assert index >= -1e-12


@pytest.mark.parametrize(
    ("x", "freedom"), [(3.841459, 1), (5.991465, 2), (7.814728, 3), (19.675138, 11), (31.410433, 20)]
)
def test_chi_squared_tail_equals_the_tables(x: float, freedom: int) -> None:
    assert drift.chi_squared_tail(x, freedom) == pytest.approx(0.05, abs=1e-7)


@pytest.mark.parametrize("freedom", [1, 2, 11, 20])
def test_false_alarm_quantile_has_the_tail_of_a_false_alarm(freedom: int) -> None:
    assert drift.chi_squared_tail(drift.false_alarm_quantile(freedom), freedom) == pytest.approx(drift.FALSE_ALARM)


def deciles_of_training(rows: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows in each bin, and the true probabilities of the bins of `count` columns of any shape."""
    expected = np.array([1.0, *[(rows - 1) / 10] * 10, 0.0])
    return expected, rng.dirichlet(np.maximum(expected, 1), count)


@pytest.mark.parametrize("rows", [100, 300, 1000, 10_000, 1_000_000])
def test_without_drift_a_day_of_50_columns_has_no_alarm(rows: int) -> None:
    """A window is new every 40 s or later: 256 of its 10,000 rows a second. 50 columns have 110,000 looks a day.

    A look's probability of an alarm is extrapolated from the tail of 100,000 looks at rarer and rarer limits.
    """
    rng = np.random.default_rng(rows)
    for recent in (200, 500, drift.WINDOW_ROWS):
        expected, shares = deciles_of_training(rows, 100_000, rng)
        found = rng.multinomial(recent, shares)
        p, q = expected + 0.5, found + 0.5
        p, q = p / p.sum(), q / q.sum(axis=1, keepdims=True)
        statistic = ((q - p) * np.log(q / p)).sum(axis=1) / (1 / recent + 1 / rows)
        tails = np.array([drift.chi_squared_tail(x, len(p) - 1) for x in np.sort(statistic)[[-1000, -100, -10]]])
        assert (tails > np.array([1e-2, 1e-3, 1e-4]) / 30).all()  # the tail is at most this much heavier
        alarms_a_day = 30 * drift.FALSE_ALARM * 50 * 86_400 / (drift.WINDOW_ROWS / drift.MAX_SAMPLE_ROWS)
        assert alarms_a_day < 0.01
        index, limit = drift_index(expected, found[np.argmax(statistic)])
        assert index < limit


@pytest.mark.parametrize("rows", [2000, 10_000, 1_000_000])
def test_a_shift_of_half_a_deviation_is_seen_within_500_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)
    column = fit_number("a", NumberStatistics.from_values(rng.normal(size=rows)), "impute", True)
    bins = next(column_bins(houses(column)))
    seen = 0
    for _ in range(200):
        values = (rng.normal(0.5, 1, 500) - column.offset) / column.scale
        index, limit = drift_index(bins.expected, bins.count(values[:, None].astype(np.float32)))
        seen += index > max(0.1, limit)
    assert seen >= 180


def test_six_columns_without_drift_have_an_index_around_zero_and_no_alarm() -> None:
    """Without the correction, one of six columns exceeded 0.1 in most services that have a small table."""
    rng = np.random.default_rng(3)
    raw, alarms = 0, 0
    for _ in range(200):
        expected, shares = deciles_of_training(241, 6, rng)
        found = [rng.multinomial(200, each) for each in shares]
        raw += any(population_stability_index(expected, each) > 0.1 for each in found)
        alarms += any(index > limit for index, limit in (drift_index(expected, each) for each in found))
    assert raw > 100
    assert alarms == 0


def test_without_drift_the_mean_index_is_near_zero() -> None:
    """Without the correction it was 9 (1/241 + 1/200) = 0.08."""
    rng = np.random.default_rng(4)
    indices = []
    for _ in range(200):
        expected, shares = deciles_of_training(241, 6, rng)
        indices += [drift_index(expected, rng.multinomial(200, each))[0] for each in shares]
    assert np.mean(indices) < 0.03


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean", [0.0, 0.1, 1e6])
def test_arrays_of_a_constant_mean_have_no_drift(mean: float, dtype: str) -> None:
    def images(count: int) -> np.ndarray:
        noise = RNG.normal(size=(count, 5, 5))
        return (noise - noise.mean(axis=(1, 2), keepdims=True) + mean).astype(np.float32)

    model = houses(fit_array("image", ArrayStatistics.from_values(images(500)), True), dtype=dtype)
    bins = next(column_bins(model))
    index, limit = drift_index(bins.expected, bins.count(model.encode([each.tolist() for each in images(1000)])))
    assert index <= limit


def test_deciles_that_float32_cannot_tell_apart_share_a_bin() -> None:
    values = np.tile([0.3, np.nextafter(0.3, 1), 0.7], 100)
    model = houses(fit_number("a", NumberStatistics.from_values(values), "impute", True))
    bins = next(column_bins(model))
    assert bins.expected.tolist() == [200, 100, 0]
    assert bins.count(model.encode([[value] for value in values.tolist()])).tolist() == [200, 100, 0]
