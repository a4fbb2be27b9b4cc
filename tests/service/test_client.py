"""The client and `models predict --url`, against the application over a socket."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from forward_pass_client import Client, InputError, NotFoundError, ServiceError
from model_store.artifact.answers import Answers
from model_store.cli.main import main
from tests.service.conftest import PENGUIN, move, price


@pytest.fixture
def url(store, make_client) -> Iterator[str]:
    store.publish("price", price(1))
    move(store, "price", "champion", 1)
    with serving(make_client(store)) as address:
        yield address


@pytest.fixture
def explained_url(store, make_client) -> Iterator[str]:
    """A service whose price/2 explains its answers."""
    model = price(2)
    store.publish("price", replace(model, answers=Answers(np.zeros(model.signature.width, np.float32))))
    with serving(make_client(store)) as address:
        yield address


@contextmanager
def serving(client) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_client_predictions_equal_the_models(url, store):
    with Client(url) as client:
        assert client.predict("price", [[3, 80]]) == store.load("price", 2)[1].predict([[3, 80]])
        assert client.predict("price", [[3, 80]], version="champion") == store.load("price", 1)[1].predict([[3, 80]])
        assert client.predict("penguins", [PENGUIN]) == store.load("penguins")[1].predict([PENGUIN])
        assert [each["name"] for each in client.models()] == ["image", "penguins", "price"]


def test_client_asks_for_the_most_probable_labels(url):
    with Client(url) as client:
        (every,), (found,) = client.predict("penguins", [PENGUIN]), client.predict("penguins", [PENGUIN], top_k=1)
        label = every["label"]
        assert found == {"label": label, "probabilities": {label: every["probabilities"][label]}}
        with pytest.raises(InputError, match="top_k: expected a model that predicts classes, found price"):
            client.predict("price", [[3, 80]], top_k=1)
        with pytest.raises(InputError, match="top_k: expected a whole number of labels, 1 or more; found '0'"):
            client.predict("penguins", [PENGUIN], top_k=0)
        with pytest.raises(InputError, match="top_k: expected rows in a list, found ndarray"):
            client.predict("price", np.zeros((1, 2)), top_k=1)


def test_client_asks_for_explanations(explained_url):
    with Client(explained_url) as client:
        version = {"version": 2}
        plain = client.predict("price", [[3, 80], [4, 90]], **version)
        assert client.explanations == []
        assert client.predict("price", [[3, 80], [4, 90]], explain=True, **version) == plain
        assert [each["answer"] for each in client.explanations] == plain
        row = {"rooms": np.float32(3), "area": Decimal(80)}
        client.predict("price", [[4, 90]], explain={"baseline": row}, **version)
        assert client.explanations[0]["baseline"] == plain[0]
        client.predict("price", [[4, 90]], **version)
        assert client.explanations == []
        with pytest.raises(InputError, match=r"explain\.target: expected one of price; found 'x'"):
            client.predict("price", [[3, 80]], explain={"target": "x"}, **version)
        with pytest.raises(InputError, match="explain: expected rows in a list, found ndarray"):
            client.predict("price", np.ones((2, 2)), explain=True)


def test_models_predict_explains_by_a_service(explained_url, store):
    rows = [f"--row=[{i}, 80]" for i in range(250)]  # more than the service explains in a request
    local = CliRunner().invoke(main, ["predict", "price/2", *rows, "--explain", "--json", "--store", str(store.root)])
    remote = CliRunner().invoke(main, ["predict", "price/2", *rows, "--explain", "--json", "--url", explained_url])
    assert json.loads(remote.stdout)["explanations"] == json.loads(local.stdout)["explanations"]
    rows[230] = '--row=["x", 80]'
    failed = CliRunner().invoke(main, ["predict", "price/2", *rows, "--explain", "--url", explained_url])
    assert "instances.230.rooms" in failed.stderr


def test_a_client_that_wants_never_older_versions_gets_none_from_another_replica(url, store, make_client):
    with Client(url, never_older=True, retries=0) as client:
        for rows in ([[3, 80]], np.array([[3.0, 80.0]])):
            client.predict("price", rows)
            client.predict("price", rows, version="champion")
        assert client.newest_versions == {("price", None): 2, ("price", "champion"): 1}
        client.newest_versions["price", None] = 3  # seen on another replica
        for rows in ([[3, 80]], np.array([[3.0, 80.0]])):
            with pytest.raises(ServiceError, match="expected version 3 or newer of price, found 2"):
                client.predict("price", rows)
            client.predict("price", rows, version="champion")
        client.newest_versions.clear()
        client.predict("price", [[3, 80]])


def test_errors_in_arrays_by_column_speak_of_columns(url, store):
    with Client(url) as client:
        with pytest.raises(InputError, match=r"inputs\.aera: unknown column \(did you mean 'area'\?\)"):
            client.predict("price", {"rooms": [3], "aera": [80]})
        with pytest.raises(InputError, match=r"inputs\.area: expected a number in each row, found text"):
            client.predict("price", {"rooms": [3], "area": ["big"]})
        objects = np.array([[PENGUIN[name] for name in ("island", "mass", "sex")]], object)
        assert client.predict("penguins", objects) == store.load("penguins")[1].predict(objects.tolist())


def test_numpy_arrays_arrive_bit_identical(url, store):
    rng = np.random.default_rng(0)
    with Client(url) as client:
        table = rng.uniform(50, 90, (20, 2))
        assert client.predict("price", table).tolist() == store.load("price", 2)[1].predict(table.tolist())
        images = rng.integers(0, 16, (5, 2, 2)).astype(np.uint8)
        expected = store.load("image")[1].predict(images.tolist())
        found = client.predict("image", images)
        assert [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)] == expected
        masses, islands = np.array([4200.5, np.nan]), np.array(["Biscoe", "Dream"])
        with pytest.raises(InputError, match=r"rows\.1\.mass: expected a number, found none") as caught:
            client.predict("penguins", {"island": islands, "mass": masses})
        assert "curl" not in str(caught.value)
        found = client.predict("penguins", {"island": islands[:1], "mass": masses[:1]}, version=1)
        (expected,) = store.load("penguins")[1].predict([PENGUIN])
        assert found["label"].tolist() == [expected["label"]]
        assert found["probabilities"].tolist() == [list(expected["probabilities"].values())]


def test_rows_of_other_numbers_are_those_of_plain_ones(url, store):
    price, penguin = store.load("price", 2)[1], store.load("penguins")[1]
    with Client(url) as client:
        expected = price.predict([[3, 80], [3, 80]])
        numbers = [[np.int64(3), np.float32(80)], [Fraction(3), Decimal("80")]]
        assert client.predict("price", numbers) == expected
        assert client.predict("price", [np.array([3, 80]), (np.longdouble(3), np.uint8(80))]) == expected
        assert client.predict("price", [{"rooms": np.int8(3), "area": float("nan")}]) == price.predict([[3, None]])
        row = PENGUIN | {"island": np.str_("Biscoe"), "sex": np.float64("nan"), "mass": np.float32(4200.5)}
        assert client.predict("penguins", [row]) == penguin.predict([PENGUIN])


def test_error_responses_raise_the_packages_exceptions(url):
    with Client(url) as client:
        with pytest.raises(InputError) as caught:
            client.predict("penguins", [PENGUIN | {"island": "Bisco"}])
        assert caught.value.faults[0].fix == "did you mean 'Biscoe'?"
        with pytest.raises(NotFoundError, match="did you mean 'price'"):
            client.predict("prise", [[3, 80]])
        with pytest.raises(NotFoundError, match="no version"):
            client.predict("price", [[3, 80]], version=9)
        with pytest.raises(InputError, match="expected text, found None"):
            client.predict("penguins", {"island": np.array([None], object)})
        with pytest.raises(InputError, match="expected an array of numbers or text"):
            client.predict("price", np.array([[1j, 2]]))


def test_models_predict_uses_a_service(url, store):
    row = json.dumps(PENGUIN | {"sex": "MALE"})
    done = CliRunner().invoke(main, ["predict", "penguins", "--row", row, "--url", url, "--json"])
    assert done.exit_code == 0, done.stderr
    expected = {"model": "penguins", "version": 1, "predictions": store.load("penguins")[1].predict([json.loads(row)])}
    assert json.loads(done.stdout) == expected
    filled = CliRunner().invoke(main, ["predict", "penguins", "--row", json.dumps(PENGUIN), "--url", url, "--json"])
    assert json.loads(filled.stdout)["warnings"][0]["problem"] == "1 missing value replaced by 'FEMALE'"
    assert CliRunner().invoke(main, ["predict", "prise", "--row", row, "--url", url]).exit_code == 5
    wrong = CliRunner().invoke(main, ["predict", "penguins", "--row", "{}", "--url", url])
    assert wrong.exit_code == 3
    assert "instances.0.mass: expected a number, found none" in wrong.stderr


def test_the_client_has_the_warnings_of_the_last_prediction(url):
    with Client(url) as client:
        client.predict("price", [{"rooms": 3}])
        assert [warning.location for warning in client.warnings] == ["instances.0.area"]
        client.predict("price", {"rooms": np.array([3.0, 4.0]), "area": np.array([np.nan, 80.0])})
        assert client.warnings[0][:2] == ("rows.0.area", "the value is missing; 70 was used")
        client.predict("price", [[3, 80]])
        assert client.warnings == []


@pytest.mark.parametrize("remote", [False, True])
def test_file_is_predicted_completely_by_store_and_by_service(url, store, tmp_path, remote):
    source, output = tmp_path / "rows.csv", tmp_path / "answers.csv"
    rows = [[rooms, 50 + rooms % 40] for rooms in range(12_001)]
    source.write_text("rooms,area,price\n" + "".join(f"{rooms},{area},1\n" for rooms, area in rows))
    where = ["--url", url] if remote else ["--store", str(store.root)]
    done = CliRunner().invoke(main, ["predict", "price", str(source), "--output", str(output), *where])
    assert done.exit_code == 0, done.stderr
    assert "Wrote the predictions of price/2 for 12001 rows" in done.stderr
    with output.open(newline="") as file:
        header, *answers = csv.reader(file)
    assert header == ["price"]
    assert [float(value) for (value,) in answers] == store.load("price", 2)[1].predict(rows)
    assert {path.name for path in tmp_path.iterdir()} >= {"rows.csv", "answers.csv"}
    assert not list(tmp_path.glob(".answers*"))


def test_classifier_output_has_the_label_and_every_probability(store, tmp_path):
    source, output = tmp_path / "rows.csv", tmp_path / "answers.csv"
    source.write_text("Biscoe,4200.5,\n")
    words = ["predict", "penguins", str(source), "--output", str(output), "--store", str(store.root)]
    assert CliRunner().invoke(main, words).exit_code == 0
    header, answer = csv.reader(output.read_text().splitlines())
    (expected,) = store.load("penguins")[1].predict([PENGUIN])
    assert header == ["species", "probability_Adelie", "probability_Gentoo"]
    assert answer == [expected["label"], *map(str, expected["probabilities"].values())]


def test_invalid_row_is_named_and_leaves_no_output_file(store, tmp_path):
    source, output = tmp_path / "rows.csv", tmp_path / "answers.csv"
    output.write_text("from before")
    words = ["predict", "price", str(source), "--output", str(output), "--store", str(store.root)]
    for line, message in (
        ("many,80", "rows.csv line 7002, column rooms"),
        ("3,80,1", "rows.csv line 7002: expected 2 cells, as in the header, found 3"),
    ):
        source.write_text("rooms,area\n" + "3,80\n" * 7000 + line + "\n")
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 3
        assert message in done.stderr
        assert output.read_text() == "from before"
        assert sorted(path.name for path in tmp_path.glob("*answers*")) == ["answers.csv"]
