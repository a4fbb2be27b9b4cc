"""The layers of a network as JSON, and the activations of a row with the formulas of its neurons."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.nn import Array, Average, Linear, ReLU, Sequential, Tanh
from service.pages.activations import MAX_EXACT, MAX_VALUES, Asked, describe_activations, trace
from service.pages.network import MAX_LAYERS, Budget, PixelNames, count_members, describe_network, layers_of
from tests.model_store.export.example_models import MADE, TRAINED, example_model
from tests.service.conftest import PENGUIN, assert_error, fault_locations, network, penguins, price

BROWSER = {"Accept": "text/html"}


def encoded_row(model: Model) -> Array:
    return model.encode([model.example_row])


def test_the_network_is_json_for_programs_and_a_page_for_browsers(client: Any) -> None:
    found = client.get("/models/penguins/network")
    assert (found.status_code, found.headers["Vary"], found.headers["X-Model-Version"]) == (
        200,
        "Accept, Accept-Encoding",
        "1",
    )
    assert [layer["type"] for layer in found.json["layers"]] == ["Linear", "Tanh", "Linear", "Softmax"]
    first = found.json["layers"][0]
    assert (first["input_shape"], first["output_shape"], first["parameters"]) == ([6], [5], 35)
    assert first["formula"] == "Y = X Wᵀ + b"
    assert first["arrays"][0]["form"] == "lines"
    assert found.json["input_names"][0] == "island = Biscoe"
    assert found.json["layers"][-1]["names"] == ["Adelie", "Gentoo"]
    page = client.get("/models/penguins/versions/1/network", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (200, "text/html")


def test_responses_match_the_openapi_document(client: Any) -> None:
    document = client.get("/openapi.json").json

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    body = {"instances": [PENGUIN], "layer": 0, "neuron": 2}
    check(body, "ActivationsRequest")
    check(client.get("/models/penguins/network").json, "Network")
    check(client.post("/models/penguins/activations", json=body).json, "Activations")


def test_the_last_activations_have_the_bits_of_the_prediction(client: Any) -> None:
    predicted = client.post("/models/penguins/predict", json={"instances": [PENGUIN]}).json
    found = client.post("/models/penguins/activations", json={"instances": [PENGUIN]}).json
    assert found["predictions"] == predicted["predictions"]
    assert found["warnings"] == predicted["warnings"]
    assert found["layers"][-1]["values"] == list(predicted["predictions"][0]["probabilities"].values())


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_every_neuron_of_every_layer_is_explained_with_its_value(name: str) -> None:
    model = example_model(name)
    inputs = encoded_row(model)
    for member in range(min(2, count_members(model.network))):
        steps = list(trace(model.network, inputs, member))
        np.testing.assert_array_equal(steps[-1].outputs, model.network(inputs))
        layers = list(layers_of(model.network, member))
        assert [type(step.module) for step in steps] == [type(layer.module) for layer in layers]
        for i, step in enumerate(steps):
            for neuron in {0, step.outputs[0].size // 2, step.outputs[0].size - 1}:
                asked = Asked(member, i, neuron)
                found = describe_activations(model.network, model.signature, inputs, asked)[1]["neuron"]
                assert found[0]["value"] == step.outputs[0].flat[neuron]
                assert found[0]["formula"]
                if "terms" in found[0]:
                    total = sum(term["product"] for term in found[0]["terms"]) + (found[0]["bias"] or 0)
                    total += found[0].get("others", {"sum": 0})["sum"]
                    assert total == pytest.approx(found[0]["value"], rel=1e-3, abs=1e-4), (i, neuron)
        described = describe_network(model.network, model.signature, member)
        assert len(described["layers"]) == len(steps)


def test_a_formula_shows_the_numbers_of_the_row_and_the_activation_after_it(client: Any) -> None:
    body = {"instances": [{"rooms": 3, "area": 80}], "layer": 0, "neuron": 1}
    linear, tanh = client.post("/models/price/activations", json=body).json["neuron"]
    weights, bias = price().network.modules[0].weights[1], price().network.modules[0].bias[1]
    terms = {term["name"]: (term["weight"], term["input"]) for term in linear["terms"]}
    assert terms == {"rooms": (float(weights[0]), 3.0), "area": (float(weights[1]), 80.0)}
    assert linear["bias"] == float(bias)
    assert linear["value"] == pytest.approx(float(weights @ np.array([3, 80], np.float32) + bias), rel=1e-5)
    assert tanh["formula"] == "y = f(x) = tanh x"
    assert tanh["value"] == pytest.approx(math.tanh(linear["value"]), rel=1e-6)
    assert tanh["numbers"].startswith("tanh(")


def test_the_values_of_an_image_have_the_names_of_their_pixels() -> None:
    assert list(PixelNames((2, 2, 1))) == ["pixel (1, 1)", "pixel (1, 2)", "pixel (2, 1)", "pixel (2, 2)"]
    assert PixelNames((32, 32, 3))[-1:] == ["pixel (32, 32) blue"]
    assert PixelNames((1, 1, 2))[1] == "pixel (1, 1) channel 2"


def test_a_sum_over_pixels_names_them() -> None:
    model = example_model("digits")
    described = describe_network(model.network, model.signature)
    assert described["input_names"][8] == "pixel (2, 1)"
    _, found = describe_activations(model.network, model.signature, encoded_row(model), Asked(0, 0, 0))
    assert {term["name"] for term in found["neuron"][0]["terms"]} <= set(described["input_names"])


def test_wide_layers_are_reduced_to_the_largest_weight_of_each_block() -> None:
    model = price()
    rng = np.random.default_rng(0)
    wide = Sequential([Linear(2, 300, rng=rng), Tanh(), Linear(300, 500, rng=rng), Linear(500, 1, rng=rng)])
    found = describe_network(wide, replace(model, network=wide).signature)["layers"][2]["arrays"][0]
    assert (found["form"], found["block"]) == ("map", [8, 5])
    assert (len(found["values"]), len(found["values"][0])) == (63, 60)
    weights = wide.modules[2].weights
    block = weights[8:16, 5:10]
    assert found["values"][1][1] == pytest.approx(block.flat[np.abs(block).argmax()], rel=1e-3)
    assert [abs(value) for *_, value in found["largest"]] == np.sort(np.abs(weights), axis=None)[:-11:-1].tolist()
    assert all(value == weights[output, place] for output, place, value in found["largest"])


def test_values_beyond_the_budget_are_counted_and_left_out() -> None:
    rng = np.random.default_rng(0)
    deep = Sequential([Linear(2, 20_000, rng=rng), *(Tanh() for _ in range(4)), Linear(20_000, 1, rng=rng)])
    model = replace(price(), network=deep)
    _, found = describe_activations(deep, model.signature, model.encode([[1, 2]]), Asked(0, 5, 0))
    shown = [layer["values"] is not None for layer in found["layers"]]
    assert shown == [True, True, False, False, False, True]
    assert found["layers"][2]["shape"] == (20_000,)
    assert found["neuron"][0]["others"]["count"] == 20_000 - len(found["neuron"][0]["terms"])
    assert not Budget(MAX_VALUES).take(MAX_VALUES + 1)


def test_the_values_of_a_picture_are_rounded() -> None:
    model = price()
    wide = Sequential([Linear(2, MAX_EXACT + 1, rng=np.random.default_rng(0)), Tanh()])
    outputs, found = describe_activations(wide, model.signature, model.encode([[1, 2]]), Asked(0, None, None))
    values = found["layers"][-1]["values"]
    assert len(values) == MAX_EXACT + 1
    np.testing.assert_allclose(values, outputs[0], rtol=0, atol=1e-3)
    assert all(len(repr(value)) <= len("-0.001") for value in values)


def test_the_members_of_an_ensemble_are_shown_one_at_a_time(store: Any, make_client: Any) -> None:
    average = Average([network(2, 1, seed) for seed in (1, 2)])
    store.publish("ensemble", replace(price(), network=Sequential([average])))
    client = make_client(store)
    found = client.get("/models/ensemble/network?member=1").json
    assert (found["members"], [layer["member"] for layer in found["layers"]]) == (2, [1, 1, 1, None])
    body = {"instances": [[3, 80]], "member": 1, "layer": 3, "neuron": 0}
    answer = client.post("/models/ensemble/activations", json=body).json
    rows = price().encode([[3, 80]])
    assert answer["layers"][2]["values"] == average.members[1](rows).ravel().tolist()
    assert [term["name"] for term in answer["neuron"][0]["terms"]] in (
        ["network 1", "network 2"],
        ["network 2", "network 1"],
    )


def test_each_network_of_an_ensemble_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 networks of 28 layers ran twice for a row, and the one whose layers are shown three times."""
    average = Average([network(2, 1, seed) for seed in (1, 2, 3)])
    ensemble = Sequential([average])
    inputs = price().encode([[3, 80]])
    expected = ensemble(inputs)
    outputs = [member(inputs).item() for member in average.members]
    layers: list[int] = []
    run = Linear.__call__

    def count(self: Linear, rows: Array) -> Array:
        layers.append(id(self))
        return run(self, rows)

    monkeypatch.setattr(Linear, "__call__", count)
    found, described = describe_activations(ensemble, price().signature, inputs, Asked(1, 3, 0))
    assert sorted(layers) == sorted(id(one) for member in average.members for one in member.modules[::2])
    np.testing.assert_array_equal(found, expected)
    terms = {term["name"]: term["input"] for term in described["neuron"][0]["terms"]}
    assert terms == {f"network {i + 1}": output for i, output in enumerate(outputs)}


@pytest.mark.parametrize("asked", [Asked(0, None, None), Asked(0, 0, 0), Asked(1, 99, 0)])
@pytest.mark.parametrize("is_ensemble", [False, True])
def test_few_outputs_of_a_row_are_in_memory_at_a_time(is_ensemble: bool, asked: Asked) -> None:
    """470 outputs of 4 MiB each, from a file of 12 kB, took 1.9 GB."""
    size = 2**16
    rng = np.random.default_rng(0)
    deep = [Sequential([Linear(1, size, rng=rng), *(ReLU() for _ in range(120))]) for _ in range(2)]
    subject = Sequential([Average(deep)]) if is_ensemble else deep[0]
    inputs = np.ones((1, 1), np.float32)
    expected = subject(inputs)
    tracemalloc.start()
    try:
        outputs, _ = describe_activations(subject, price().signature, inputs, asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(outputs, expected)
    assert peak < 32 * expected.nbytes  # a network pads one row to eight, before and after a layer


def test_of_many_layers_the_first_are_shown() -> None:
    rng = np.random.default_rng(0)
    deep = Sequential([Linear(2, 4, rng=rng), *(Tanh() for _ in range(500)), Linear(4, 1, rng=rng)])
    model = replace(price(), network=deep)
    described = describe_network(deep, model.signature)
    assert (len(described["layers"]), described["hidden_layers"]) == (MAX_LAYERS, 502 - MAX_LAYERS)
    _, found = describe_activations(deep, model.signature, model.encode([[1, 2]]), Asked(0, 0, 0))
    assert (len(found["layers"]), len(found["neuron"])) == (MAX_LAYERS, 4)


@pytest.mark.parametrize(
    ("more", "location"),
    [
        ({"instances": [PENGUIN, PENGUIN]}, "instances"),
        ({"layer": 4, "neuron": 0}, "layer"),
        ({"layer": 0, "neuron": 5}, "neuron"),
        ({"layer": 0, "neuron": -1}, "neuron"),
        ({"layer": 0}, "neuron"),
        ({"neuron": 0}, "layer"),
        ({"member": 1}, "member"),
        ({"layer": True, "neuron": 0}, "layer"),
        ({"layer": "0", "neuron": 0}, "layer"),
        ({"neurons": 0}, "neurons"),
        ({"instances": [{**PENGUIN, "mass": "heavy"}]}, "instances.0.mass"),
    ],
)
def test_an_invalid_request_is_refused_with_its_location(client: Any, more: dict[str, Any], location: str) -> None:
    answer = client.post("/models/penguins/activations", json={"instances": [PENGUIN], **more})
    assert fault_locations(assert_error(answer, 422, "invalid_request")) == [location]


def test_other_invalid_requests_are_refused(client: Any) -> None:
    assert_error(client.get("/models/penguins/network?member=1"), 422, "invalid_request")
    assert_error(client.get("/models/none/network"), 404, "unknown_model")
    assert_error(client.post("/models/none/activations", json={}), 404, "unknown_model")
    assert_error(
        client.post("/models/penguins/activations", data="a,b", content_type="text/csv"), 415, "unsupported_media_type"
    )
    assert_error(client.post("/models/penguins/activations", json=[1]), 422, "invalid_request")


def test_the_network_is_off_with_the_pages(store: Any, make_client: Any) -> None:
    client = make_client(store, pages=False)
    for answer in (
        client.get("/models/penguins/network"),
        client.get("/models/penguins/network", headers=BROWSER),
        client.post("/models/penguins/activations", json={"instances": [PENGUIN]}),
    ):
        assert "SERVE_PAGES=on" in assert_error(answer, 404, "not_found")["message"]


def test_a_version_is_described_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client.get("/models/penguins/network").json
    monkeypatch.setattr("service.routes.network.describe_network", None)
    assert client.get("/models/penguins/network").json == first


def test_a_hostile_model_is_text_on_the_page(store: Any, make_client: Any) -> None:
    store.publish("hostile", replace(penguins(), description="<script>alert(1)</script>"))
    page = make_client(store).get("/models/hostile/network", headers=BROWSER).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
