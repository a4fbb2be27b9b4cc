"""First light: from job files to answers over HTTP, on real data, with nothing replaced."""

import pytest

from model_store.registry.store import open_store
from tests.end_to_end.commands import EXAMPLES, ROOT, run_training
from training.pipeline import job as jobs

pytestmark = pytest.mark.slow

WANTED_ACCURACY = {"penguins": 0.95, "digits": 0.94}


def prepared(name: str) -> jobs.Prepared:
    return jobs.prepare(jobs.load(ROOT / "examples" / f"{name}.toml"))


@pytest.mark.parametrize("name", WANTED_ACCURACY)
def test_rows_held_out_are_answered_rightly_over_http(served, name):
    rows = prepared(name)
    predictions = served.predict(name, rows.test_instances)
    right = [answer["label"] == label for answer, label in zip(predictions, rows.test_labels, strict=True)]
    assert sum(right) / len(right) >= WANTED_ACCURACY[name]


def test_exclusive_or_is_learned(served):
    answers = served.predict("xor", [[0, 0], [0, 1], [1, 0], [1, 1]])
    assert [round(answer) for answer in answers] == [0, 1, 1, 0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_served_answers_equal_those_of_the_published_model_bit_for_bit(served, name):
    instances = prepared(name).test_instances
    _, model = open_store(served.store).load(name)
    assert served.predict(name, instances) == model.predict(instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_served_answers_equal_those_of_the_trained_network_bit_for_bit(served, name):
    rows = prepared(name)
    trained = jobs.fit(rows).model
    assert served.predict(name, rows.test_instances) == trained.predict(rows.test_instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_answer_does_not_depend_on_who_shares_the_request(served, name):
    instances = prepared(name).test_instances[:40]
    assert [served.predict(name, [row])[0] for row in instances] == served.predict(name, instances)


@pytest.mark.parametrize("name", EXAMPLES)
def test_retraining_with_the_same_seed_gives_the_same_file(served, name, tmp_path):
    run_training(name, tmp_path)
    first, again = (store / name / "1.npz" for store in (served.store, tmp_path))
    assert first.read_bytes() == again.read_bytes()


def test_rows_may_be_objects_by_column_name(served):
    rows = prepared("penguins")
    objects = [dict(zip(rows.signature.names, row, strict=True)) for row in rows.test_instances]
    assert served.predict("penguins", objects) == served.predict("penguins", rows.test_instances)
