"""The model: predictions, the fit of network and signature, golden outputs."""

import dataclasses

import numpy as np
import pytest

from model_store.artifact import model as artifact_model
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError
from model_store.nn import Array, Linear, Sequential, Sigmoid, Softmax
from model_store.schema.signature import (
    CategoryColumn,
    ClassificationOutput,
    NumberColumn,
    RegressionOutput,
    Signature,
)

INPUTS = (NumberColumn("a", 1.0, 2.0), NumberColumn("b"))


def model() -> Model:
    network = Sequential([Linear(2, 3, rng=np.random.default_rng(0)), Softmax()])
    signature = Signature(INPUTS, ClassificationOutput("kind", ("x", "y", "z")))
    rows = [[1, 2], {"a": 3, "b": 4.5}]
    return Model(network, signature, golden=Golden(rows, network(signature.encode(rows))))


def test_predictions_equal_the_networks_outputs() -> None:
    it = model()
    rows = [[1.5, -2], [0, 0]]
    expected = it.network(np.array([[0.25, -2], [-0.5, 0]], np.float32))
    found = [list(answer["probabilities"].values()) for answer in it.predict(rows)]
    assert np.array(found, np.float32).tobytes() == expected.tobytes()


def test_check_golden_rejects_other_outputs() -> None:
    it = model()
    it.check_golden()
    assert it.golden is not None
    other = dataclasses.replace(it, golden=Golden(it.golden.instances, it.golden.outputs[::-1]))
    with pytest.raises(ArtifactError, match=r"golden\.outputs: the network does not reproduce"):
        other.check_golden()
    dataclasses.replace(it, golden=None).check_golden()


def test_check_golden_rejects_rows_of_another_length() -> None:
    it = model()
    assert it.golden is not None
    other = dataclasses.replace(it, golden=Golden([[1, 2, 3], [4]], it.golden.outputs))
    with pytest.raises(ArtifactError, match=r"golden\.instances: expected rows that fit the signature"):
        other.check_golden()


def test_check_golden_rejects_bits_that_depend_on_the_batch() -> None:
    class BatchDependent(Linear):
        def __call__(self, inputs: Array) -> Array:
            return super().__call__(inputs) * np.float32(1 + 1e-6 * (len(inputs) - 1))

    batch_dependent = Sequential([BatchDependent(2, 3, rng=np.random.default_rng(0)), Softmax()])
    rows = [[i, i / 2] for i in range(batch_dependent.block_rows + 1)]  # more than the rows that are computed with one
    signature = model().signature
    it = Model(batch_dependent, signature, golden=Golden(rows, batch_dependent(signature.encode(rows))))
    with pytest.raises(ArtifactError, match=r"golden\.instances\.\d: the network gives it other bits alone"):
        it.check_golden()


def test_check_golden_of_a_costly_network_checks_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    it = model()
    assert it.golden is not None
    encoded: list[int] = []
    monkeypatch.setattr(Model, "encode", lambda self, rows: encoded.append(len(rows)) or self.signature.encode(rows))
    cost = it.network.row_cost
    for limit, rows in ((0, 1), (1, 1), (2, 2), (1000, 2)):
        monkeypatch.setattr(artifact_model, "MAX_ROW_OPERATIONS", cost.pass_operations + limit * (cost.operations + 1))
        it.check_golden()
        assert encoded.pop() == rows


def test_network_and_signature_must_fit() -> None:
    three = Sequential([Linear(2, 3)])
    with pytest.raises(ValueError, match="output size of 1, one output for each target; found 3"):
        Model(three, Signature(INPUTS, RegressionOutput(("y",), (0.0,), (1.0,))))
    with pytest.raises(ValueError, match="input_size: expected 1, the signature's encoded width; found 2"):
        Model(three, Signature(INPUTS[:1], ClassificationOutput("kind", ("x", "y", "z"))))
    with pytest.raises(ValueError, match="output size of 2, one output for each label; found 3"):
        Model(three, Signature(INPUTS, ClassificationOutput("kind", ("x", "y"))))
    Model(Sequential([Linear(2, 1), Sigmoid()]), Signature(INPUTS, ClassificationOutput("kind", ("x", "y"))))


def test_check_golden_of_many_categories_encodes_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact of 1.2 MB, with 100,000 categories and 4,000 rows of one text each, took 5 GB."""
    column = CategoryColumn("word", tuple(f"w{i}" for i in range(1000)))
    network = Sequential([Linear(1000, 1, rng=np.random.default_rng(0))])
    signature = Signature((column,), RegressionOutput(("y",), (0.0,), (1.0,)))
    rows = [["w1"]] * 100
    it = Model(network, signature, golden=Golden(rows, network(signature.encode(rows))))
    encoded: list[int] = []
    monkeypatch.setattr(Model, "encode", lambda self, rows: encoded.append(len(rows)) or self.signature.encode(rows))
    for limit, count in ((10, 1), (5000, 5), (10**6, 100)):
        monkeypatch.setattr(artifact_model, "MAX_ARRAY_BYTES", 4 * limit)
        it.check_golden()
        assert encoded.pop() == count


def test_only_the_first_cells_of_golden_rows_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file of 10 kB with 10,000 rows of 100 texts took 0.3 s to load."""
    columns = tuple(NumberColumn(f"x{i}") for i in range(100))
    network = Sequential([Linear(100, 1, rng=np.random.default_rng(0))])
    signature = Signature(columns, RegressionOutput(("y",), (0.0,), (1.0,)))
    rows = [[1] * 100 for _ in range(5000)]
    encoded, encode = [], Signature.encode
    monkeypatch.setattr(
        Signature,
        "encode",
        lambda self, rows, *args, **options: encoded.append(len(rows)) or encode(self, rows, *args, **options),
    )
    Model(network, signature, golden=Golden(rows, network(np.ones((5000, 100), np.float32)))).check_golden()
    assert encoded == [1000]
