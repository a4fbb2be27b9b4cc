"""Keras models become models with the same answers; what cannot be imported is named by its layer."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from model_store.errors import ModelImportError
from model_store.importing import files
from model_store.importing.keras_file import read_keras
from model_store.importing.publication import GivenGolden, prepare

FIXTURES = Path(__file__).parent / "fixtures"


def rows_of(name: str) -> tuple[list[Any], Any]:
    answers = np.load(FIXTURES / f"{name}.npz")
    inputs = answers["inputs"]
    return (inputs[..., 0] if inputs.ndim == 4 else inputs).tolist(), answers["outputs"]


@pytest.mark.parametrize("name", ["keras_mlp", "keras_conv"])
def test_a_network_of_keras_answers_digits_as_keras(name: str) -> None:
    rows, outputs = rows_of(name)
    model = prepare(read_keras(FIXTURES / f"{name}.keras"), golden=GivenGolden(rows, outputs.astype(np.float64)))
    assert model.training["import"]["largest_difference"] <= 1e-5
    assert model.training["import"]["producer"] == "keras 3.15.1"
    assert model.signature.output.public_details()["labels"] == list(range(10))
    found = [list(one["probabilities"].values()) for one in model.predict(rows)]
    np.testing.assert_allclose(found, outputs, rtol=0, atol=1e-5)
    assert model.golden is not None
    np.testing.assert_array_equal(model.golden.outputs, outputs[:8])  # Keras's answers


def test_windows_with_same_padding_answer_as_keras() -> None:
    """A stride of 2 pads one side more than the other; the mean of a window does not count the padding."""
    rows, outputs = rows_of("keras_pooling")
    golden = GivenGolden(rows, outputs.astype(np.float64))
    model = prepare(read_keras(FIXTURES / "keras_pooling.keras"), golden=golden)
    assert [type(module).__name__ for module in model.network.modules if module.config().get("padding")] == [
        *("Conv2D", "MaxPool2D", "Conv2D", "AveragePool2D")
    ]
    assert model.training["import"]["largest_difference"] <= 1e-5


def test_the_activations_of_keras_answer_as_keras() -> None:
    rows, outputs = rows_of("keras_activations")
    model = prepare(
        read_keras(FIXTURES / "keras_activations.keras"), golden=GivenGolden(rows, outputs.astype(np.float64))
    )
    kinds = [type(module).__name__ for module in model.network.modules]
    assert [kind for kind in kinds if kind not in {"Linear", "BatchNorm"}] == [
        *("ExactGELU", "SiLU", "Softplus", "ELU", "ELU", "SiLU")
    ]
    assert model.training["import"]["largest_difference"] <= 1e-5


def test_answers_that_differ_are_refused() -> None:
    rows, outputs = rows_of("keras_mlp")
    outputs = outputs.astype(np.float64)
    outputs[3, 4] += 2e-5
    with pytest.raises(ModelImportError, match=r"golden.inputs.3: expected .* as output 4, .*nothing was published"):
        prepare(read_keras(FIXTURES / "keras_mlp.keras"), golden=GivenGolden(rows, outputs))


def test_without_golden_rows_a_note_says_that_nothing_was_compared() -> None:
    model = prepare(read_keras(FIXTURES / "keras_conv.keras"))
    assert "were not compared" in model.training["notes"][0]
    assert "largest_difference" not in model.training["import"]


def changed(directory: Path, change: Callable[[Any], None], weights: Callable[[h5py.File], None] | None = None) -> Path:
    """A copy of keras_conv.keras with another configuration and other weights."""
    path = directory / "changed.keras"
    with zipfile.ZipFile(FIXTURES / "keras_conv.keras") as source, zipfile.ZipFile(path, "w") as target:
        config = json.loads(source.read("config.json"))
        change(config)
        stored = io.BytesIO(source.read("model.weights.h5"))
        if weights is not None:
            with h5py.File(stored, "r+") as file:
                weights(file)
        target.writestr("config.json", json.dumps(config))
        target.writestr("metadata.json", source.read("metadata.json"))
        target.writestr("model.weights.h5", stored.getvalue())
    return path


def layer(config: Any, name: str) -> Any:
    return next(one for one in config["config"]["layers"] if one["config"]["name"] == name)


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "class": (lambda c: c.update(class_name="Functional"), "expected a Sequential, found 'Functional'"),
    "layer": (
        lambda c: layer(c, "conv2d").update(class_name="LSTM"),
        r"layer 'conv2d' \(LSTM\): expected one of Activ",
    ),
    "activation": (
        lambda c: layer(c, "activation")["config"].update(activation="hard_swish"),
        r"layer 'activation' \(Activation\): activation: expected one of .* found 'hard_swish'",
    ),
    "format": (
        lambda c: layer(c, "conv2d")["config"].update(data_format="channels_first"),
        r"layer 'conv2d' \(Conv2D\): data_format: expected 'channels_last'",
    ),
    "units": (
        lambda c: layer(c, "dense_3")["config"].update(units=11),
        r"'dense_3' \(Dense\): array 0: expected numbers",
    ),
    "key": (lambda c: layer(c, "dense_3")["config"].pop("units"), r"\(Dense\): expected the configuration of Keras 3"),
    "pool": (
        lambda c: layer(c, "max_pooling2d")["config"].update(pool_size=[2, 300]),
        r"'max_pooling2d' \(MaxPooling2D\): expected windows of at most 255, found",
    ),
}


@pytest.mark.parametrize(("change", "problem"), CHANGES.values(), ids=CHANGES)
def test_a_layer_that_cannot_be_imported_is_named(change: Callable[[Any], Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match=problem):
        read_keras(changed(tmp_path, change))


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    """HDF5 has links and datasets that lead to any file of the machine."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["numbers"] = np.zeros((32, 10), np.float32)
    (tmp_path / "raw").write_bytes(bytes(32 * 10 * 4))

    def link(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(secret), "numbers")

    def external(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        storage = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        file["layers/dense/vars"].create_dataset("0", (32, 10), np.float32, external=storage)

    def virtual(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        layout = h5py.VirtualLayout((32, 10), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "numbers", (32, 10))
        file["layers/dense/vars"].create_virtual_dataset("0", layout)

    def group(file: h5py.File) -> None:
        del file["layers/dense"]
        file["layers/dense"] = h5py.ExternalLink(str(secret), "/")

    for change in (link, external, virtual, group):
        path = changed(tmp_path, lambda config: None, change)
        with pytest.raises(
            ModelImportError, match=r"array 0: expected numbers of shape \(32, 10\) in the file, found none"
        ):
            read_keras(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (2 << 20))
    with pytest.raises(ModelImportError, match="expected 1048576 unpacked bytes at most"):
        read_keras(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_archive_is_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(data)
    with pytest.raises(ModelImportError, match=r"model\.keras"):
        read_keras(path)
