"""MLServer's types and codecs, which its clients use: they write the requests and parse the responses.

Answers are read strictly, and hold nothing that the types would drop.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Server

types = pytest.importorskip("mlserver.types", reason="MLServer is installed by make clients")
codecs = pytest.importorskip("mlserver.codecs", reason="MLServer is installed by make clients")
pandas = pytest.importorskip("pandas", reason="MLServer is installed by make clients")

pytestmark = pytest.mark.slow

COLUMNS = ["island", "mass", "sex"]
TABLE = [["Biscoe", 4200.5, "MALE"], ["Dream", 3300.0, "FEMALE"], ["Torgersen", 4700.25, "MALE"]]


def ask(server: Server, path: str, expected: Any, given: Any = None, status: int = 200) -> Any:
    """Send GET, or POST with one of MLServer's types, and parse the response as another of them."""
    body = None if given is None else given.model_dump_json().encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v2{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            found, text = response.status, response.read()
    except urllib.error.HTTPError as refused:
        found, text = refused.code, refused.read()
    assert found == status, text
    answer = expected.model_validate_json(text, strict=True)
    kept, sent = json.loads(answer.model_dump_json(exclude_unset=True)), json.loads(text)
    assert kept == (sent if status == 200 else {"error": sent["error"]})
    return answer


def infer(server: Server, model: str, *inputs: Any, **more: Any) -> Any:
    request = types.InferenceRequest(inputs=list(inputs), **more)
    return ask(server, f"/models/{model}/infer", types.InferenceResponse, request)


def refused(server: Server, model: str, *inputs: Any, status: int = 400) -> str:
    request = types.InferenceRequest(inputs=list(inputs))
    answer = ask(server, f"/models/{model}/infer", types.InferenceErrorResponse, request, status)
    error: str = answer.error
    return error


def arrays(answer: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {output.name: codecs.NumpyCodec.decode_output(output) for output in answer.outputs}


def penguin_inputs(use_bytes: bool = True) -> list[Any]:
    island, mass, sex = map(list, zip(*TABLE, strict=True))
    return [
        codecs.StringCodec.encode_input("island", island, use_bytes),
        codecs.NumpyCodec.encode_input("mass", np.array(mass)),
        codecs.StringCodec.encode_input("sex", sex, use_bytes),
    ]


def check(server: Server, answer: Any) -> None:
    """Assert the classifier's predictions for TABLE."""
    _, model = server.store.load("penguins")
    expected = model.predict(TABLE)
    label = next(output for output in answer.outputs if output.name == "label")
    assert label.datatype == "BYTES"
    assert codecs.StringCodec.decode_output(label) == [row["label"] for row in expected]
    assert arrays(answer)["probabilities"].tolist() == [list(row["probabilities"].values()) for row in expected]


def test_metadata(server):
    """Server and model metadata"""
    assert "model_repository" in ask(server, "", types.MetadataServerResponse).extensions
    for name, inputs in (
        ("penguins", [("island", "BYTES"), ("mass", "FP64"), ("sex", "BYTES")]),
        ("image", [("pixels", "FP32")]),
        ("price", [("rooms", "FP64"), ("area", "FP64")]),
    ):
        found = ask(server, f"/models/{name}", types.MetadataModelResponse)
        assert found.name == name
        assert [(tensor.name, tensor.datatype) for tensor in found.inputs] == inputs
    assert ask(server, "/models/price/versions/1", types.MetadataModelResponse).versions == ["1", "2"]


@pytest.mark.parametrize("use_bytes", [True, False])
def test_categories(server, use_bytes):
    """Inference with BYTES for categories"""
    check(server, infer(server, "penguins", *penguin_inputs(use_bytes)))


def test_data_frame(server):
    """Inference with a data frame, returned as a data frame"""
    frame = pandas.DataFrame(TABLE, columns=COLUMNS)
    frame = frame.astype({"island": object, "sex": object})  # the dtype of pandas 2, which MLServer supports
    request = codecs.PandasCodec.encode_request(frame)
    check(server, ask(server, "/models/penguins/infer", types.InferenceResponse, request))
    frame = pandas.DataFrame({"rooms": [3.0, 5.0, 2.5], "area": [80.0, np.nan, 41.0]})
    request = codecs.PandasCodec.encode_request(frame)
    answer = codecs.PandasCodec.decode_response(ask(server, "/models/price/infer", types.InferenceResponse, request))
    _, model = server.store.load("price")
    assert answer["price"].tolist() == model.predict([[3.0, 80.0], [5.0, None], [2.5, 41.0]])


def test_arrays(server):
    """Inference with arrays: bit-identical to the model"""
    _, model = server.store.load("image")
    images = np.random.default_rng(0).uniform(0, 16, (50, 2, 2)).astype(np.float32)
    request = codecs.NumpyRequestCodec.encode_request(images)
    request.inputs[0].name = "pixels"
    found = arrays(ask(server, "/models/image/infer", types.InferenceResponse, request))
    expected = model.predict(images.tolist())
    assert {name: found[name].dtype.name for name in found} == {"ink": "float64", "slant": "float64"}
    assert found["ink"].ravel().tolist() == [row["ink"] for row in expected]


@pytest.mark.parametrize("datatype", [each.value for each in types.Datatype if each.value not in {"BOOL", "BYTES"}])
def test_datatypes(server, datatype):
    """Inference with numbers of every datatype"""
    dtype = {"FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(datatype, datatype.lower())
    given = [codecs.NumpyCodec.encode_input(name, np.array([[x]], dtype)) for name, x in (("rooms", 3), ("area", 80))]
    assert [each.datatype for each in given] == [datatype] * 2
    _, model = server.store.load("price")
    assert arrays(infer(server, "price", *given))["price"].ravel().tolist() == model.predict([[3, 80]])


def test_version(server):
    """Inference by version and with a request id"""
    given = [codecs.NumpyCodec.encode_input(name, np.array([[x]])) for name, x in (("rooms", 3.0), ("area", 80.0))]
    for version, number in (("", 2), ("/versions/1", 1), ("/versions/2", 2), ("/versions/champion", 1)):
        answer = infer(server, f"price{version}", *given, id="a-1", outputs=[types.RequestOutput(name="price")])
        assert (answer.model_name, answer.model_version, answer.id) == ("price", str(number), "a-1")
        _, model = server.store.load("price", number)
        assert arrays(answer)["price"].ravel().tolist() == model.predict([[3, 80]])


def test_faults(server):
    """A wrong shape is reported in the error
    A wrong datatype or name is reported in the error"""
    encode = codecs.NumpyCodec.encode_input
    assert "expected shape [-1, 2, 2], found [1, 3]" in refused(server, "image", encode("pixels", np.zeros((1, 3))))
    assert "did you mean 'pixels'?" in refused(server, "image", encode("pixel", np.zeros((1, 4))))
    assert "found text (BYTES)" in refused(server, "image", encode("pixels", np.full((1, 4), "a")))
    assert "did you mean 'penguins'" in refused(server, "pengins", *penguin_inputs(), status=404)
    missing = ask(server, "/models/pengins", types.MetadataModelErrorResponse, status=404)
    assert "did you mean 'penguins'" in missing.error


def test_repository_index(server):
    """Repository index"""
    for ready in (None, True):
        asked = types.RepositoryIndexRequest(ready=ready)
        found = ask(server, "/repository/index", types.RepositoryIndexResponse, asked)
        assert {(each.name, each.version) for each in found} == {
            ("half_plus_two", "1"),
            ("image", "1"),
            ("penguins", "1"),
            ("price", "1"),
            ("price", "2"),
        }
        assert {each.state for each in found} == {"READY"}
