"""A version that was exported to ONNX and imported again is the same model, to the bit."""

from pathlib import Path

import numpy as np
import pytest

from model_store.errors import ModelImportError
from model_store.importing.onnx.graph import read_onnx
from model_store.importing.publication import prepare
from tests.model_store.export.example_models import example_model, example_rows
from tests.model_store.export.test_onnx import exported

NAMES = [
    *("xor", "penguins", "digits", "numbers", "precise numbers", "categories", "dates", "one output", "two outputs"),
    *("several labels", "column label", "precise vectors", "log", "log1p", "quantile", "counts"),
]


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_imported_as_the_same_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    (content,) = exported(name).values()
    path.write_bytes(content)
    original, imported = example_model(name), prepare(read_onnx(path))
    assert imported.signature == original.signature
    rows, _ = example_rows(name)
    found, expected = (model.network(model.encode(rows)) for model in (imported, original))
    np.testing.assert_array_equal(found, expected)


def test_a_layer_that_is_several_operators_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    (content,) = exported("tabular").values()
    path.write_bytes(content)
    with pytest.raises(ModelImportError, match=r"node '/network/1.PeriodicEmbedding/Transpose' \(Transpose\)"):
        read_onnx(path)
