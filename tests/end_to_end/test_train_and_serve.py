"""From job files to predictions over HTTP, on real data and without mocks."""

import pytest

from model_store.registry.store import open_store
from tests.end_to_end.commands import EXAMPLES, ROOT, run_training
from training.pipeline import job as jobs

pytestmark = pytest.mark.slow

MIN_ACCURACY = {"penguins": 0.95, "digits": 0.94}


def prepared(name: str) -> jobs.PreparedJob:
    return jobs.prepare(jobs.load(ROOT / "examples" / f"{name}.toml"))


@pytest.mark.parametrize("name", MIN_ACCURACY)
def test_predictions_for_test_rows_over_http_are_accurate(service, name):
    rows = prepared(name)
    predictions = service.predict(name, rows.evaluation_instances)
    pairs = zip(predictions, rows.evaluation_labels, strict=True)
    correct = [prediction["label"] == label for prediction, label in pairs]
    assert sum(correct) / len(correct) >= MIN_ACCURACY[name]


def test_xor_is_learned(service):
    predictions = service.predict("xor", [[0, 0], [0, 1], [1, 0], [1, 1]])
    assert [round(prediction) for prediction in predictions] == [0, 1, 1, 0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_served_predictions_equal_those_of_the_published_model_bit_for_bit(service, name):
    instances = prepared(name).evaluation_instances
    _, model = open_store(service.store).load(name)
    assert service.predict(name, instances) == model.predict(instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_served_predictions_equal_those_of_the_trained_network_bit_for_bit(service, name):
    rows = prepared(name)
    trained = jobs.train_and_evaluate(rows).model
    assert service.predict(name, rows.evaluation_instances) == trained.predict(rows.evaluation_instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_prediction_does_not_depend_on_the_other_rows_of_the_request(service, name):
    instances = prepared(name).evaluation_instances[:40]
    assert [service.predict(name, [row])[0] for row in instances] == service.predict(name, instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_retraining_with_the_same_seed_gives_the_same_file(service, name, tmp_path):
    run_training(name, tmp_path)
    first, again = (store / name / "1.npz" for store in (service.store, tmp_path))
    assert first.read_bytes() == again.read_bytes()


def test_rows_may_be_objects_by_column_name(service):
    rows = prepared("penguins")
    objects = [dict(zip(rows.signature.names, row, strict=True)) for row in rows.evaluation_instances]
    assert service.predict("penguins", objects) == service.predict("penguins", rows.evaluation_instances)
