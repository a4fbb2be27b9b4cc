"""The catalog: follows the store, and never serves less than it did because something there went wrong."""

import gc
import shutil
import weakref
from datetime import UTC, datetime

import pytest

from model_store.artifact import npz
from model_store.artifact.model import Golden, Model
from model_store.errors import StoreError
from model_store.registry.store import open_store
from service.registry.registry import Catalog, UnavailableError, UnknownError
from service.telemetry.metrics import Metrics
from tests.service.conftest import assert_error, break_version, move, penguins, price

ROW = {"instances": [[3.0, 80.0]]}


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def catalog(store, tmp_path, clock):
    catalog = Catalog(store, tmp_path / "cache", Metrics(), max_instances=100, max_extra_versions=2, clock=clock)
    catalog.refresh()
    return catalog


def problems(catalog):
    return [(problem.place, problem.problem) for problem in catalog.snapshot.problems]


def test_published_version_answers_after_a_look_at_the_store(catalog, store):
    assert catalog.find("price").number == 1
    store.publish("price", price(1))
    assert catalog.find("price").number == 1
    assert catalog.refresh()
    assert catalog.find("price").number == 2


def test_a_look_at_an_unchanged_store_changes_nothing(catalog):
    before = catalog.snapshot
    assert not catalog.refresh()
    assert catalog.snapshot is before


@pytest.mark.parametrize("alias", ["default", "champion"])
def test_an_alias_that_cannot_be_read_keeps_what_it_had_and_nobody_else_waits(catalog, store, alias):
    move(store, "price", alias, 1)
    catalog.refresh()
    broken = store.root / "price" / "aliases" / alias / "2.json"
    broken.write_text("{")
    store.publish("price", price(1))
    store.publish("second", price(2))
    catalog.refresh()
    assert catalog.find("price", alias).number == 1
    assert catalog.find("second").number == 1
    assert [place for place, _ in problems(catalog)] == [f"price/{alias}"]
    store.set_alias("price", alias, 2, who="tests", why="to mend it", when=datetime(2024, 1, 1, tzinfo=UTC), force=True)
    catalog.refresh()
    assert catalog.find("price", alias).number == 2
    assert problems(catalog) == []


def test_new_model_appears_and_removed_model_goes(catalog, store):
    store.publish("second", price(3))
    store.remove("price", 1)
    catalog.refresh()
    assert catalog.find("second").number == 1
    with pytest.raises(UnknownError, match="image, penguins, second"):
        catalog.find("price")


def test_default_alias_decides_what_answers(catalog, store):
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    catalog.refresh()
    assert catalog.find("price").number == 1
    assert catalog.find("price", "latest").number == 2
    move(store, "price", "default", 2)
    catalog.refresh()
    assert catalog.find("price").number == catalog.find("price", "default").number == 2


def test_alias_moves_forth_and_back(catalog, store):
    store.publish("price", price(1))
    for version in (1, 2, 1):
        move(store, "price", "champion", version)
        catalog.refresh()
        assert catalog.find("price", "champion").number == version
    assert catalog.find("price").number == 2


def test_what_did_not_change_is_not_loaded_again(catalog, store):
    before = catalog.find("penguins")
    store.publish("price", price(1))
    catalog.refresh()
    assert catalog.find("penguins") is before


def test_broken_version_leaves_the_one_before_serving_and_is_told(catalog, store):
    before = catalog.find("price")
    break_version(store, "price", store.publish("price", price(1)).number)
    assert catalog.refresh()
    assert catalog.find("price") is before
    assert [place for place, _ in problems(catalog)] == ["price/2"]
    with pytest.raises(UnavailableError, match="price/2"):
        catalog.find("price", 2)
    store.publish("price", price(2))
    catalog.refresh()
    assert catalog.find("price").number == 3
    assert not problems(catalog)


def test_alias_moved_to_a_broken_version_keeps_answering_with_the_one_before(catalog, store):
    move(store, "price", "champion", 1)
    catalog.refresh()
    break_version(store, "price", store.publish("price", price(1)).number)
    move(store, "price", "champion", 2)
    catalog.refresh()
    assert catalog.find("price", "champion").number == 1
    assert [place for place, _ in problems(catalog)] == ["price/2"]


def test_version_that_does_not_reproduce_its_golden_answers_is_not_served(catalog, store, monkeypatch):
    model = price(1)
    wrong = Golden([[1.0, 1.0]], model.network(model.encode([[1.0, 1.0]])) + 1)
    with monkeypatch.context() as elsewhere:  # on a machine whose kernels compute something else
        elsewhere.setattr(Model, "check_golden", lambda _: None)
        store.publish("price", Model(model.network, model.signature, golden=wrong))
    catalog.refresh()
    assert catalog.find("price").number == 1
    assert "golden" in problems(catalog)[0][1]


def test_start_with_a_broken_newest_version_serves_the_one_before(store, tmp_path):
    break_version(store, "price", store.publish("price", price(1)).number)
    catalog = Catalog(store, tmp_path / "cache", Metrics(), max_instances=100, max_extra_versions=2)
    catalog.refresh()
    assert catalog.find("price").number == 1
    assert [place for place, _ in problems(catalog)] == ["price/2"]


def test_start_with_a_broken_default_alias_does_not_guess_another_version(store, tmp_path):
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    break_version(store, "price", 1)
    catalog = Catalog(store, tmp_path / "cache", Metrics(), max_instances=100, max_extra_versions=2)
    catalog.refresh()
    with pytest.raises(UnavailableError, match="no version of price"):
        catalog.find("price")
    assert catalog.find("price", 2).number == 2
    assert catalog.find("penguins").number == 1


def test_broken_version_is_tried_again_later_and_later(catalog, store, clock, monkeypatch):
    number = store.publish("price", price(1)).number
    good = store.path("price", number).read_bytes()
    break_version(store, "price", number)
    tries = []
    path = store.path
    monkeypatch.setattr(store, "path", lambda *version: (tries.append(clock.seconds), path(*version))[1])
    for second in range(100):
        clock.seconds = float(second)
        catalog.refresh()
    assert tries == [0, 2, 6, 14, 30, 62]
    path("price", number).write_bytes(good)
    clock.seconds = 200
    catalog.refresh()
    assert catalog.find("price").number == number
    assert not problems(catalog)


def test_store_that_vanishes_leaves_everything_serving(catalog, store):
    before = catalog.find("price")
    shutil.move(store.root, store.root.with_name("elsewhere"))
    assert catalog.refresh()
    assert catalog.find("price") is before
    assert [place for place, _ in problems(catalog)] == ["store"]
    assert not catalog.refresh()
    store.root.mkdir()
    catalog.refresh()
    assert catalog.find("price") is before
    assert "empty" in problems(catalog)[0][1]
    store.root.rmdir()
    shutil.move(store.root.with_name("elsewhere"), store.root)
    catalog.refresh()
    assert not problems(catalog)


def test_store_that_fails_in_any_way_leaves_everything_serving(catalog, store, monkeypatch):
    for error in (StoreError("no permission"), PermissionError("no permission")):

        def fail(error=error):
            raise error

        monkeypatch.setattr(store, "state", fail)
        catalog.refresh()
        assert catalog.find("price").number == 1
        assert "no permission" in problems(catalog)[0][1]
        assert catalog.snapshot.problems[0].mend == "what was loaded before keeps answering"


def test_a_store_that_cannot_be_read_at_the_start_is_not_said_to_be_answered_from(tmp_path):
    catalog = Catalog(open_store(tmp_path / "no"), tmp_path / "cache", Metrics(), max_instances=1, max_extra_versions=1)
    catalog.refresh()
    (problem,) = catalog.snapshot.problems
    assert "train a model first, or choose another store" in problem.problem
    assert problem.mend == "until it can, the answer is 503"


def test_file_rewritten_in_the_store_does_not_change_what_is_served(catalog, store):
    served = catalog.find("price")
    before = served.model.predict(ROW["instances"])
    path = store.path("price", 1)
    path.chmod(0o600)
    path.write_bytes(b"\0" * 10)
    catalog.refresh()
    assert catalog.find("price").model.predict(ROW["instances"]) == before


def test_other_versions_are_loaded_when_asked_for_and_only_some_are_kept(catalog, store):
    for seed in range(1, 5):
        store.publish("price", price(seed))
    catalog.refresh()
    assert catalog.find("price").number == 5
    first = catalog.find("price", 1)
    assert catalog.find("price", "1") is first
    catalog.find("price", 2)
    assert catalog.find("price", 1) is first
    catalog.find("price", 3)  # now 2, used least lately, is forgotten
    assert catalog.find("price", 1) is first
    assert catalog.find("price", 2).number == 2


def test_cache_holds_no_more_than_what_is_in_memory(catalog, store, tmp_path):
    for seed in range(1, 6):
        store.publish("price", price(seed))
        catalog.refresh()
    for number in (1, 2, 3, 4):
        catalog.find("price", number)
    held = {path.stem for path in (tmp_path / "cache").glob("*.npz")}
    wanted = {npz.digest(store.path("price", number)) for number in (3, 4, 6)}
    wanted |= {npz.digest(store.path(name, 1)) for name in ("image", "penguins")}
    assert held == wanted


def test_copy_trimmed_by_another_worker_is_made_again(catalog, store, monkeypatch):
    store.publish("price", price(1))
    real, trimmed = npz.read, []

    def read(path, **options):
        if not trimmed:
            trimmed.append(path)
            path.unlink()
        return real(path, **options)

    monkeypatch.setattr("service.registry.loader.npz.read", read)
    monkeypatch.setattr("service.registry.loader.localise", lambda path, _: _localised(real, path, catalog))
    catalog.refresh()
    assert trimmed
    assert catalog.find("price").number == 2


def _localised(real, path, catalog):
    copy = catalog._cache_dir / f"{npz.digest(path)}.npz"
    if not copy.exists():
        shutil.copy(path, copy)
    return copy


def test_request_under_way_ends_with_the_version_it_began_with(client, store):
    catalog = client.application.extensions["catalog"]
    served = catalog.find("price")
    store.publish("price", price(1))
    catalog.refresh()
    assert served.number == 1
    assert served.model.predict(ROW["instances"])
    assert catalog.find("price").number == 2


def test_service_without_a_model_says_how_to_get_one(make_client, tmp_path):
    store = open_store(tmp_path / "none")
    client = make_client(store)
    response = client.post("/predict", json=ROW)
    error = assert_error(response, 503, "no_model")
    assert "train examples/penguins.toml" in error["message"]
    assert int(response.headers["Retry-After"]) > 0
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json["status"] == "unavailable"
    store.publish("penguins", penguins())
    client.application.extensions["catalog"].refresh()
    assert client.get("/readyz").status_code == 200
    assert client.post("/predict", json={"instances": [["Dream", 4000, "MALE"]]}).status_code == 200


def test_readiness_tells_of_a_broken_version_and_stays_ready(client, store):
    break_version(store, "price", store.publish("price", price(1)).number)
    client.application.extensions["catalog"].refresh()
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["models"]["price"] == 1
    assert ready.json["problems"][0]["place"] == "price/2"
    assert "models verify price/2" in ready.json["problems"][0]["mend"]
    figures = client.get("/metrics").get_data(as_text=True)
    assert 'forward_pass_model_load_failures_total{model="price"} 1.0' in figures
    assert "forward_pass_problems 1.0" in figures
    assert_error(client.post("/models/price/versions/2/predict", json=ROW), 503, "model_unavailable")


def test_a_version_that_was_replaced_is_let_go_of_at_once(catalog, store):
    """Its map of a file, which may be as large as a model can be, does not wait until garbage is collected."""
    replaced = weakref.ref(catalog.find("price").model)
    gc.collect()
    gc.disable()
    try:
        store.publish("price", price(1))
        catalog.refresh()
        assert catalog.find("price").number == 2
        assert replaced() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/models/fresh", "/v2/models/fresh", "/v1/models/fresh"])
@pytest.mark.parametrize("comes", [True, False])
def test_a_request_sees_one_state_while_its_model_comes_or_goes(client, store, monkeypatch, path, comes):
    catalog = client.application.extensions["catalog"]
    without = catalog.snapshot
    store.publish("fresh", price(1))
    catalog.refresh()
    states = [without, catalog.snapshot] if comes else [catalog.snapshot, without]
    monkeypatch.setattr(Catalog, "snapshot", property(lambda _: states.pop(0) if len(states) > 1 else states[0]))
    assert client.get(path).status_code == (404 if comes else 200)
