"""The registry follows the store, and keeps serving what it has if something goes wrong there."""

import gc
import shutil
import weakref
from datetime import UTC, datetime

import pytest

from model_store.artifact import manifest, npz
from model_store.artifact.model import Golden, Model
from model_store.errors import StoreError
from model_store.registry.publication import Publication
from model_store.registry.store import open_store
from model_store.storage import artifact_cache
from model_store.storage.base import put_object
from service.registry.errors import UnavailableError, UnknownModelError
from service.registry.registry import ModelRegistry
from service.telemetry.metrics import Metrics
from tests.service.conftest import assert_error, break_version, move, penguins, price, with_golden
from tests.service.registry.conftest import LIMITS

ROW = {"instances": [[3.0, 80.0]]}


@pytest.fixture
def registry(store, tmp_path, clock):
    registry = ModelRegistry(store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2, clock=clock)
    registry.refresh()
    return registry


def problems(registry):
    return [(problem.location, problem.problem) for problem in registry.snapshot.problems]


def test_published_version_is_served_after_a_sync(registry, store):
    assert registry.find("price").number == 1
    store.publish("price", price(1))
    assert registry.find("price").number == 1
    assert registry.refresh()
    assert registry.find("price").number == 2


def test_sync_with_an_unchanged_store_changes_nothing(registry):
    before = registry.snapshot
    assert not registry.refresh()
    assert registry.snapshot is before


@pytest.mark.parametrize("alias", ["default", "champion"])
def test_unreadable_alias_keeps_its_version_and_delays_no_other_model(registry, store, alias):
    move(store, "price", alias, 1)
    registry.refresh()
    broken = store.root / "price" / "aliases" / alias / "2.json"
    broken.write_text("{")
    store.publish("price", price(1))
    store.publish("second", price(2))
    registry.refresh()
    assert registry.find("price", alias).number == 1
    assert registry.find("second").number == 1
    assert [location for location, _ in problems(registry)] == [f"price/{alias}"]
    store.set_alias("price", alias, 2, who="tests", why="to fix it", when=datetime(2024, 1, 1, tzinfo=UTC), force=True)
    registry.refresh()
    assert registry.find("price", alias).number == 2
    assert problems(registry) == []


def test_new_model_appears_and_removed_model_disappears(registry, store):
    store.publish("second", price(3))
    store.remove("price", 1)
    registry.refresh()
    assert registry.find("second").number == 1
    with pytest.raises(UnknownModelError, match="image, penguins, second"):
        registry.find("price")


def test_default_alias_decides_which_version_is_served(registry, store):
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    registry.refresh()
    assert registry.find("price").number == 1
    assert registry.find("price", "latest").number == 2
    move(store, "price", "default", 2)
    registry.refresh()
    assert registry.find("price").number == registry.find("price", "default").number == 2


def test_alias_moves_forth_and_back(registry, store):
    store.publish("price", price(1))
    for version in (1, 2, 1):
        move(store, "price", "champion", version)
        registry.refresh()
        assert registry.find("price", "champion").number == version
    assert registry.find("price").number == 2


def test_unchanged_models_are_not_loaded_again(registry, store):
    before = registry.find("penguins")
    store.publish("price", price(1))
    registry.refresh()
    assert registry.find("penguins") is before


def test_broken_version_leaves_the_one_before_serving_and_is_reported(registry, store):
    before = registry.find("price")
    break_version(store, "price", store.publish("price", price(1)).number)
    assert registry.refresh()
    assert registry.find("price") is before
    assert [location for location, _ in problems(registry)] == ["price/2"]
    with pytest.raises(UnavailableError, match="price/2"):
        registry.find("price", 2)
    store.publish("price", price(2))
    registry.refresh()
    assert registry.find("price").number == 3
    assert not problems(registry)


def test_alias_moved_to_a_broken_version_keeps_serving_the_one_before(registry, store):
    move(store, "price", "champion", 1)
    registry.refresh()
    break_version(store, "price", store.publish("price", price(1)).number)
    move(store, "price", "champion", 2)
    registry.refresh()
    assert registry.find("price", "champion").number == 1
    assert [location for location, _ in problems(registry)] == ["price/2"]


def test_version_that_does_not_reproduce_its_golden_predictions_is_not_served(registry, store, monkeypatch):
    model = price(1)
    wrong = Golden([[1.0, 1.0]], model.network(model.encode([[1.0, 1.0]])) + 1)
    with monkeypatch.context() as elsewhere:  # as on a machine that computes other values
        elsewhere.setattr(Model, "check_golden", lambda _: None)
        store.publish("price", Model(model.network, model.signature, golden=wrong))
    registry.refresh()
    assert registry.find("price").number == 1
    assert "golden" in problems(registry)[0][1]


def test_start_with_a_broken_newest_version_serves_the_one_before(store, tmp_path):
    break_version(store, "price", store.publish("price", price(1)).number)
    registry = ModelRegistry(store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2)
    registry.refresh()
    assert registry.find("price").number == 1
    assert [location for location, _ in problems(registry)] == ["price/2"]


def test_start_with_a_broken_default_alias_serves_no_other_version(store, tmp_path):
    store.publish("price", price(1))
    move(store, "price", "default", 1)
    break_version(store, "price", 1)
    registry = ModelRegistry(store, tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=2)
    registry.refresh()
    with pytest.raises(UnavailableError, match="no version of price"):
        registry.find("price")
    assert registry.find("price", 2).number == 2
    assert registry.find("penguins").number == 1


def test_broken_version_is_retried_with_growing_delays(registry, store, clock, monkeypatch):
    number = store.publish("price", price(1)).number
    good = store.path("price", number).read_bytes()
    break_version(store, "price", number)
    tries = []
    path = store.path
    monkeypatch.setattr(store, "path", lambda *version: (tries.append(clock.seconds), path(*version))[1])
    for second in range(100):
        clock.seconds = float(second)
        registry.refresh()
    assert tries == [0, 2, 6, 14, 30, 62]
    path("price", number).write_bytes(good)
    clock.seconds = 200
    registry.refresh()
    assert registry.find("price").number == number
    assert not problems(registry)


def test_store_that_disappears_leaves_everything_serving(registry, store):
    before = registry.find("price")
    shutil.move(store.root, store.root.with_name("elsewhere"))
    assert registry.refresh()
    assert registry.find("price") is before
    assert [location for location, _ in problems(registry)] == ["store"]
    assert not registry.refresh()
    store.root.mkdir()
    registry.refresh()
    assert registry.find("price") is before
    assert "empty" in problems(registry)[0][1]
    store.root.rmdir()
    shutil.move(store.root.with_name("elsewhere"), store.root)
    registry.refresh()
    assert not problems(registry)


def test_store_that_fails_in_any_way_leaves_everything_serving(registry, store, monkeypatch):
    for error in (StoreError("no permission"), PermissionError("no permission")):

        def fail(error=error):
            raise error

        monkeypatch.setattr(store, "state", fail)
        registry.refresh()
        assert registry.find("price").number == 1
        assert "no permission" in problems(registry)[0][1]
        assert registry.snapshot.problems[0].fix == "models loaded before keep serving"


def test_a_model_whose_folder_cannot_be_read_harms_itself_alone(registry, store, tmp_path):
    store.publish("price", price(1))
    registry.refresh()
    folder, aside = store.root / "price", store.root.parent / "aside"
    folder.rename(aside)
    folder.symlink_to("price")
    store.publish("penguins", penguins(1))
    for _ in range(2):
        registry.refresh()
        assert registry.find("price").number == 2
        assert registry.find("penguins").number == 2
        (problem,) = registry.snapshot.problems
        assert (problem.location, problem.fix) == ("price/", "its versions loaded before keep serving")
        assert "Too many levels of symbolic links" in problem.problem

    restarted = ModelRegistry(store, tmp_path / "other", Metrics(), row_limits=LIMITS, max_extra_versions=1)
    restarted.refresh()
    assert restarted.find("penguins").number == 2
    with pytest.raises(UnavailableError, match="no version of price can be served") as caught:
        restarted.find("price")
    assert caught.value.fault.fix == "requests return 503 until it can be read"

    folder.unlink()
    aside.rename(folder)
    store.publish("price", price(2))
    for each in (registry, restarted):
        each.refresh()
        assert each.find("price").number == 3
        assert each.snapshot.problems == ()


def test_store_that_is_unreadable_at_the_start_is_reported_with_503_as_its_effect(tmp_path):
    registry = ModelRegistry(
        open_store(tmp_path / "no"), tmp_path / "cache", Metrics(), row_limits=LIMITS, max_extra_versions=1
    )
    registry.refresh()
    (problem,) = registry.snapshot.problems
    assert "train a model first, or choose another store" in problem.problem
    assert problem.fix == "requests return 503 until it can be read"


def test_file_rewritten_in_the_store_does_not_change_the_served_version(registry, store):
    served = registry.find("price")
    before = served.model.predict(ROW["instances"])
    path = store.path("price", 1)
    path.chmod(0o600)
    path.write_bytes(b"\0" * 10)
    registry.refresh()
    assert registry.find("price").model.predict(ROW["instances"]) == before


def test_other_versions_are_loaded_on_request_and_the_most_recent_are_kept(registry, store):
    for seed in range(1, 5):
        store.publish("price", price(seed))
    registry.refresh()
    assert registry.find("price").number == 5
    first = registry.find("price", 1)
    assert registry.find("price", "1") is first
    registry.find("price", 2)
    assert registry.find("price", 1) is first
    registry.find("price", 3)  # drops 2, the least recently used
    assert registry.find("price", 1) is first
    assert registry.find("price", 2).number == 2


@pytest.mark.parametrize("spare_bytes", [0, 10**6])
def test_cache_holds_versions_in_memory_and_some_evicted_ones(registry, store, tmp_path, monkeypatch, spare_bytes):
    """Replaced versions leave at once; those that requests have asked for may be asked for again."""
    monkeypatch.setattr(artifact_cache, "MAX_SPARE_BYTES", spare_bytes)
    for seed in range(1, 6):
        store.publish("price", price(seed))
        registry.refresh()
    for number in (1, 2, 3, 4):
        registry.find("price", number)
    assert len(registry._version_cache.versions()) == 2
    held = {path.stem for path in (tmp_path / "cache").glob("*.npz")}
    kept = (1, 2, 3, 4, 6) if spare_bytes else (3, 4, 6)
    expected = {npz.read_digest(store.path("price", number)) for number in kept}
    expected |= {npz.read_digest(store.path(name, 1)) for name in ("image", "penguins")}
    assert held == expected


def test_evicted_version_is_loaded_again_from_its_copy_unverified_and_unchecked(registry, store, monkeypatch):
    """Versions beyond the cache, asked for in turn, took 35 MB of disk and a whole verification each time."""
    for seed in range(1, 6):
        store.publish("price", with_golden(price(seed), [[3, 80]]))
    registry.refresh()
    digests = [registry.find("price", number).digest for number in (1, 2, 3, 4)]
    work = []
    for place, name in ((artifact_cache, "_fetch_and_verify"), (Model, "check_golden"), (manifest, "from_bytes")):
        real = getattr(place, name)
        record = lambda *args, real=real, name=name: work.append(name) or real(*args)  # noqa: E731
        monkeypatch.setattr(place, name, record)
    assert [registry.find("price", number).digest for number in (1, 2, 3, 4)] == digests
    assert work == ["from_bytes"] * 4


def test_copy_trimmed_by_another_worker_is_made_again(registry, store, monkeypatch):
    store.publish("price", price(1))
    real, trimmed = npz.read, []

    def read(path, **options):
        if not trimmed:
            trimmed.append(path)
            path.unlink()
        return real(path, **options)

    monkeypatch.setattr("service.registry.loader.npz.read", read)
    monkeypatch.setattr("service.registry.loader.cache_file", lambda path, _: _localised(real, path, registry))
    registry.refresh()
    assert trimmed
    assert registry.find("price").number == 2


def _localised(real, path, registry):
    copy = registry._cache_dir / f"{npz.read_digest(path)}.npz"
    if not copy.exists():
        shutil.copy(path, copy)
    return copy


def test_request_in_progress_finishes_with_the_version_it_started_with(client, store):
    registry = client.application.extensions["registry"]
    served = registry.find("price")
    store.publish("price", price(1))
    registry.refresh()
    assert served.number == 1
    assert served.model.predict(ROW["instances"])
    assert registry.find("price").number == 2


def test_service_without_a_model_says_how_to_train_one(make_client, tmp_path):
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
    client.application.extensions["registry"].refresh()
    assert client.get("/readyz").status_code == 200
    assert client.post("/predict", json={"instances": [["Dream", 4000, "MALE"]]}).status_code == 200


def test_readiness_reports_a_broken_version_and_stays_ready(client, store):
    break_version(store, "price", store.publish("price", price(1)).number)
    client.application.extensions["registry"].refresh()
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["models"]["price"] == 1
    assert ready.json["problems"][0]["location"] == "price/2"
    assert "models verify price/2" in ready.json["problems"][0]["fix"]
    figures = client.get("/metrics").get_data(as_text=True)
    assert 'forward_pass_model_load_failures_total{model="price"} 1.0' in figures
    assert "forward_pass_problems 1.0" in figures
    assert_error(client.post("/models/price/versions/2/predict", json=ROW), 503, "model_unavailable")


def test_replaced_version_is_freed_at_once(registry, store):
    """Its mapped file may be large, so it does not wait for garbage collection."""
    replaced = weakref.ref(registry.find("price").model)
    gc.collect()
    gc.disable()
    try:
        store.publish("price", price(1))
        registry.refresh()
        assert registry.find("price").number == 2
        assert replaced() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/models/fresh", "/v2/models/fresh", "/v1/models/fresh"])
@pytest.mark.parametrize("comes", [True, False])
def test_request_sees_one_state_while_its_model_appears_or_disappears(client, store, monkeypatch, path, comes):
    registry = client.application.extensions["registry"]
    without = registry.snapshot
    store.publish("fresh", price(1))
    registry.refresh()
    states = [without, registry.snapshot] if comes else [registry.snapshot, without]
    monkeypatch.setattr(ModelRegistry, "snapshot", property(lambda _: states.pop(0) if len(states) > 1 else states[0]))
    assert client.get(path).status_code == (404 if comes else 200)


def test_publications_are_those_of_the_store_for_pinned_and_other_versions(registry, store):
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    for seed, who in ((1, "ada"), (2, "bob"), (3, "cyd")):
        store.publish("price", price(seed), who=who, when=noon)
    move(store, "price", "champion", 2)
    registry.refresh()
    entry = registry.snapshot.entries["price"]
    for ref, who in ((None, "cyd"), ("champion", "ada"), (3, "bob")):
        assert entry.publication(registry.find("price", ref)) == Publication(who, noon)


def test_a_record_written_after_its_version_was_loaded_is_shown_after_the_next_sync(registry, store):
    """The publisher writes the artifact first: a follower can see it without its record."""
    store.publish("price", price(1), who="ada")
    record = store.storage.get("price/2.json")
    store.storage.delete("price/2.json")
    registry.refresh()
    served = registry.find("price")
    entry = registry.snapshot.entries["price"]
    assert (entry.publication(served).who, entry.publication(served).recorded) == (None, False)
    put_object(store.storage, "price/2.json", record)
    assert registry.refresh()
    assert registry.find("price") is served
    entry = registry.snapshot.entries["price"]
    assert (entry.publication(served).who, entry.publication(served).recorded) == ("ada", True)
    assert not registry.refresh()


def test_a_damaged_record_is_a_problem_and_its_version_is_served(registry, store):
    store.publish("price", price(1))
    store.storage.delete("price/2.json")
    put_object(store.storage, "price/2.json", b"{")
    registry.refresh()
    assert registry.find("price").number == 2
    ((location, problem),) = problems(registry)
    assert location == "price/2.json"
    assert "expected a publication record" in problem
    assert registry.snapshot.entries["price"].publication(registry.find("price")) is None
    store.storage.delete("price/2.json")
    registry.refresh()
    assert problems(registry) == []
