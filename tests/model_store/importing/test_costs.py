"""What a small file may cost: everything that it makes is compared with its size before it is made."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import skops.io
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from model_store.errors import ModelImportError
from model_store.importing.keras_file import read_keras
from model_store.importing.publication import draw_rows
from model_store.importing.pytorch_weights import read_pytorch
from model_store.importing.reading import read_model
from model_store.importing.sklearn.pipeline import read_sklearn
from model_store.schema.signature import ArrayColumn, RegressionOutput, Signature

MIB = 1 << 20
MAX_BYTES = 150 * MIB  # that a refused file of some kilobytes may have at a time
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def refused(problem: str, read: Callable[[], Any]) -> None:
    """Check that a file is refused before it takes memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelImportError, match=problem):
            read()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MAX_BYTES


def test_random_numbers_of_a_large_array_have_few_digits():
    """208 bytes of ONNX ask for 512 x 512 values, of which the manifest had 5.4 MB, read and written six times."""
    signature = Signature((ArrayColumn("image", (64, 128), 0.5, 3.0),), RegressionOutput(("y",), (0.0,), (1.0,)))
    (row,) = draw_rows(signature, np.random.default_rng(0), 1)
    assert len(json.dumps(row)) < 9 * 64 * 128
    values = np.array(row)
    assert (values == values.astype(np.float32)).all()
    assert 2.9 < values.std() < 3.1


# Keras -----------------------------------------------------------------------------------------------------------


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


def inputs(*shape: int) -> dict[str, Any]:
    return layer("InputLayer", batch_shape=[None, *shape])


def dense(units: int) -> dict[str, Any]:
    return layer("Dense", units=units, use_bias=False, activation="linear")


def keras(directory: Path, layers: list[Any], method: int = zipfile.ZIP_DEFLATED, **dataset: Any) -> Path:
    """A file whose dense layer has a dataset of these settings."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        if dataset:
            file.create_dataset("layers/dense/vars/0", **dataset)
    path = directory / "model.keras"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


RESCALING = layer("Rescaling", scale=2.0, offset=1.0)
SOFTMAX = layer("Softmax", axis=-1)
POOL = layer("MaxPooling2D", pool_size=[1, 1], strides=None, padding="valid", data_format=None)
LARGE_KERAS = {
    "input": ([inputs(2**24), RESCALING], "InputLayer: expected at most .* values of a file of this size"),
    "rescaling": ([inputs(2**20), *[RESCALING] * 40], "'rescaling' .*expected at most .* values"),
    "softmax": ([inputs(2**20), *[SOFTMAX] * 900], "'softmax' .*expected at most .* values"),
    "pool": ([inputs(1024, 1024, 1), *[POOL] * 900], "'maxpooling2d' .*expected at most .* values"),
}


@pytest.mark.parametrize(("layers", "problem"), LARGE_KERAS.values(), ids=LARGE_KERAS)
def test_layers_of_a_configuration_have_a_budget(layers: list[Any], problem: str, tmp_path: Path) -> None:
    refused(problem, partial(read_keras, keras(tmp_path, layers)))


COMPRESSED: dict[str, dict[str, Any]] = {
    "unallocated": {"shape": (2**12, 4096), "dtype": "f4"},
    "gzip": {"shape": (2**12, 4096), "dtype": "f4", "chunks": (2**12, 4096), "compression": "gzip"},
}


@pytest.mark.parametrize("settings", COMPRESSED.values(), ids=COMPRESSED)
def test_an_array_of_hdf5_without_its_bytes_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = keras(tmp_path, [inputs(2**12), dense(4096)], **settings)
    refused("array 0: expected 67108864 bytes in the file, found compressed ones or none", partial(read_keras, path))


def test_an_array_of_hdf5_is_charged_before_it_is_read(tmp_path: Path) -> None:
    data = np.zeros((2**10, 2**14), np.float32)
    path = keras(tmp_path, [inputs(2**10), layer("ReLU"), dense(2**14)], data=data)
    del data
    with pytest.raises(ModelImportError, match="expected 67108864 unpacked bytes at most, found 6711"):
        read_keras(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_another_method_than_deflate_is_refused(method: int, tmp_path: Path) -> None:
    path = keras(tmp_path, [inputs(4), dense(2)], method, data=np.ones((4, 2), np.float32))
    refused("config.json: expected it stored or deflated, found method", partial(read_keras, path))


def test_members_of_an_archive_that_share_their_packed_bytes_count_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.json", bytes(30 * MIB))
    refused("expected 67108864 unpacked bytes at most, found 94371840", partial(read_keras, path))


def test_images_at_the_end_of_a_keras_file_are_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match=r"model\.keras: expected a row of values, found \(1, 8, 8\)"):
        read_keras(keras(tmp_path, [inputs(8, 8, 1), POOL, layer("ReLU")]))


def test_a_configuration_of_impossible_numbers_is_an_error_of_the_layer(tmp_path: Path) -> None:
    elu = layer("ELU", alpha=10**400)
    with pytest.raises(ModelImportError, match=r"'elu' .*too large to convert"):
        read_keras(keras(tmp_path, [inputs(4), elu]))


# scikit-learn ----------------------------------------------------------------------------------------------------


def network() -> Any:
    table = np.linspace(0, 1, 40).reshape(20, 2)
    return MLPRegressor(hidden_layer_sizes=(2,), max_iter=2).fit(table, table[:, 0])


MARK = np.array([123457, 7, 9])


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def skops_file(directory: Path, estimator: Any, mark: bytes = b"", change: Callable[[Any], Any] = lambda x: x) -> Path:
    """An estimator whose array `MARK` has other bytes, and whose schema is changed."""
    path = directory / "model.skops"
    with (
        zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            data = mark if mark and data == npy(MARK) else data
            if name == "schema.json":
                data = json.dumps(change(json.loads(data))).encode()
            target.writestr(name, data)
    return path


def read_skops(path: Path) -> Any:
    return read_sklearn(path, trust=False)


ARRAYS = {
    "empty_rows": (header("<f8", (10**8, 0)), r"expected 800000000 bytes, found 128 for shape \(100000000, 0\)"),
    "empty_texts": (header("<U0", (2 * 10**8,)), "expected at most .* values of a file of this size"),
    "without_data": (header("|i1", (10**7,)), r"expected 10000000 bytes, found 128 for shape \(10000000,\) of int8"),
    "small_numbers": (
        header("|i1", (10**7,)) + bytes(10**7),
        "expected at most .* values of a file of this size, found 10240000000",
    ),
}


@pytest.mark.parametrize(("data", "problem"), ARRAYS.values(), ids=ARRAYS)
def test_names_of_columns_have_a_budget(data: bytes, problem: str, tmp_path: Path) -> None:
    estimator = network()
    estimator.feature_names_in_ = MARK
    refused(problem, partial(read_skops, skops_file(tmp_path, estimator, data)))


def test_the_number_of_columns_has_a_budget(tmp_path: Path) -> None:
    """A version of 250,000 columns, from 10 kB, took 4 s and 310 MB."""
    estimator = network()
    estimator.n_features_in_ = 35_000
    estimator.coefs_[0] = np.zeros((35_000, 2))
    problem = r"MLPRegressor\): expected at most .* values of a file of this size, found 35840000"
    refused(problem, partial(read_skops, skops_file(tmp_path, estimator)))


def test_categories_have_a_budget(tmp_path: Path) -> None:
    encoder = OneHotEncoder().fit([[0.0, 0.0], [1.0, 1.0]])
    encoder.categories_[0] = MARK
    data = header("|i1", (10**6,)) + bytes(10**6)
    path = skops_file(tmp_path, make_pipeline(encoder, network()), data)
    refused("'onehotencoder' .*expected at most .* values of a file of this size", partial(read_skops, path))


def test_column_transformers_that_double_the_features_have_a_budget(tmp_path: Path) -> None:
    doubled = ColumnTransformer([("a", "passthrough", [0, 1])]).fit([[0, 0], [1, 1]])
    doubled.transformers_ = [("a", "passthrough", slice(None)), ("b", "passthrough", slice(None))]
    path = skops_file(tmp_path, Pipeline([*((f"c{i}", doubled) for i in range(30)), ("network", network())]))
    refused(r"step 'c\d+' .*expected at most .* values of a file of this size", partial(read_skops, path))


def test_the_columns_of_a_transformer_have_a_budget(tmp_path: Path) -> None:
    columns = ColumnTransformer([("a", "passthrough", [0, 1])]).fit([[0, 0], [1, 1]])
    columns.transformers_ = [("a", "passthrough", MARK)]
    data = header("|i1", (10**6,)) + bytes(10**6)
    path = skops_file(tmp_path, make_pipeline(columns, network()), data)
    refused("'columntransformer' .*expected at most .* values of a file of this size", partial(read_skops, path))


class _Text(str):
    """A text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        _Text.compared += 1
        return str.__eq__(self, other)


def test_each_category_is_compared_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from model_store.importing.features import CategoryFeature
    from model_store.importing.sklearn.transformers import ENCODERS

    count = 300
    encoder = OneHotEncoder().fit([[i] for i in range(count)])
    monkeypatch.setattr(_Text, "compared", 0)
    item = CategoryFeature("x", tuple(_Text(i) for i in range(count)), fill="another")
    found = ENCODERS["OneHotEncoder"](encoder, 0, item)
    assert len(found) == count
    assert _Text.compared <= 2 * count


def test_an_encoder_that_claims_more_indicators_than_it_has_is_refused(tmp_path: Path) -> None:
    encoder = OneHotEncoder(sparse_output=False).fit([[0.0, 0.0], [1.0, 1.0]])
    encoder._n_features_outs = [10**9, 2]
    path = skops_file(tmp_path, make_pipeline(encoder, network()))
    refused("'x0': expected 2 indicators, found 1000000000", partial(read_skops, path))


def test_a_generator_whose_size_is_a_number_is_refused_before_it_is_made(tmp_path: Path) -> None:
    estimator = network()
    estimator.random_state = np.random.default_rng(1)
    refused("found 'RandomGeneratorNode' of 'Generator'", partial(read_skops, skops_file(tmp_path, estimator)))


def test_a_sparse_matrix_which_is_an_archive_in_the_archive_is_refused(tmp_path: Path) -> None:
    estimator = network()
    estimator.table_ = csr_matrix(np.eye(2))
    refused("found 'SparseMatrixNode' of 'csr_matrix'", partial(read_skops, skops_file(tmp_path, estimator)))


def test_bytes_of_a_size_that_a_number_names_are_refused(tmp_path: Path) -> None:
    estimator = network()
    estimator.table_ = MARK

    def change(schema: Any) -> Any:
        return json.loads(json.dumps(schema).replace('"__class__": "ndarray"', '"__class__": "bytes_"'))

    path = skops_file(tmp_path, estimator, b"", change)
    refused("expected numbers or texts, found 'bytes_'", partial(read_skops, path))


def test_a_list_that_holds_itself_many_times_by_its_id_is_refused(tmp_path: Path) -> None:
    """Each level holds the one below ten times: 5 levels stand for 100,000 lists."""

    def change(schema: Any) -> Any:
        def node(level: int, known: bool) -> dict[str, Any]:
            below = [] if known or not level else [node(level - 1, False), *[node(level - 1, True)] * 9]
            types = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
            return {**types, "content": below, "__id__": 10**9 + level}

        schema["content"]["content"]["table_"] = node(5, False)
        return schema

    refused("expected one object of each id", partial(read_skops, skops_file(tmp_path, network(), b"", change)))


# PyTorch ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "job.toml"
        path.write_text(text)
        return path

    return write


def weights(directory: Path, *shape: int, name: str = "model.safetensors") -> Path:
    save_file({"layer.weight": np.ones(shape, np.float32)}, directory / name)
    return directory / name


@pytest.mark.parametrize("count", [1000, 50_000_000])
def test_empty_weights_of_many_columns_are_refused(count: int, job: Any, tmp_path: Path) -> None:
    path, layers = weights(tmp_path, 0, count), job("[network]\nlayers = []\n")
    refused("layer.weight: expected (at most|numbers)", partial(read_pytorch, path, layers, None))


JOBS = {
    "dots": ("[network]\nlayers = []\n" + "a." * 20_000 + "a = 1\n", "line 3: expected keys of few parts"),
    "deep": ("[network]\nlayers = " + "[" * 5000 + "]" * 5000, "expected at most 32 tables and lists in each other"),
    "layers": (f"[network]\nlayers = {['relu'] * 1001}", "expected 1000 layers at most, found 1001"),
}


@pytest.mark.parametrize(("text", "problem"), JOBS.values(), ids=JOBS)
def test_the_job_of_weights_is_parsed_in_bounded_time(text: str, problem: str, job: Any, tmp_path: Path) -> None:
    path, layers = weights(tmp_path, 2, 3), job(text)
    refused(problem, partial(read_pytorch, path, layers, None))


def test_the_shape_of_a_signature_has_a_budget(job: Any, tmp_path: Path) -> None:
    path, layers = weights(tmp_path, 2, 1, 3, 3), job("[network]\nlayers = [{ conv = 2 }]\n")
    read = partial(read_model, path, job=layers, shape=[20_000, 20_000, 1])
    refused("input: expected at most .* values of a file of this size", read)


def test_more_tensors_than_layers_are_refused_before_the_search(job: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"layer{i}.weight": np.ones((1, 1), np.float32) for i in range(40)}, path)
    with pytest.raises(ModelImportError, match="expected tensors of 1 layers at most, found 40"):
        read_pytorch(path, job("[network]\nlayers = []\n"), None)


def test_a_suffix_in_capitals_is_the_same_kind(job: Any, tmp_path: Path) -> None:
    path, layers = weights(tmp_path, 2, 3, name="MODEL.SAFETENSORS"), job("[network]\nlayers = []\n")
    assert read_model(path, job=layers).source.producer == "PyTorch (safetensors)"
