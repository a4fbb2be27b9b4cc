"""Artifacts: writing and reading, seen by this project's reader and by NumPy and zipfile."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import itertools
import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import nn
from model_store.artifact import npz
from model_store.artifact.answers import Answers
from model_store.artifact.conformal import Conformal, LocalScale
from model_store.artifact.model import Golden, Model
from model_store.errors import ArtifactError
from model_store.nn import Linear, Sequential, build
from model_store.schema.signature import NumberColumn, RegressionOutput, Signature


def as_bytes(model: Model) -> bytes:
    file = io.BytesIO()
    npz.write(file, model)
    return file.getvalue()


def equal(one: Model, other: Model) -> bool:
    arrays = one.network.arrays(), other.network.arrays()
    return (
        list(arrays[0]) == list(arrays[1])
        and all(a.tobytes() == arrays[1][name].tobytes() for name, a in arrays[0].items())
        and one.network.config() == other.network.config()
        and one.signature.config() == other.signature.config()
        and (one.description, dict(one.training)) == (other.description, dict(other.training))
        and (one.golden is None) == (other.golden is None)
        and (
            one.golden is None
            or other.golden is None
            or (
                one.golden.instances == other.golden.instances
                and one.golden.outputs.tobytes() == other.golden.outputs.tobytes()
            )
        )
    )


def test_a_written_model_is_read_unchanged(model: Model, written: Path) -> None:
    found = npz.read(written)
    assert equal(model, found)
    found.check_golden()
    assert found.predict([[30, "Bath"]]) == model.predict([[30, "Bath"]])


def test_equal_models_have_equal_bytes_and_others_do_not(make_model) -> None:
    assert as_bytes(make_model(1)) == as_bytes(make_model(1))
    assert as_bytes(make_model(1)) != as_bytes(make_model(2))


def test_reading_and_writing_gives_the_same_bytes(written: Path) -> None:
    assert as_bytes(npz.read(written)) == written.read_bytes()


def test_the_digest_is_the_hash_of_the_manifest(model: Model, written: Path) -> None:
    with np.load(written) as arrays:
        expected = hashlib.sha256(arrays["__manifest__"].tobytes()).hexdigest()
    assert npz.write(io.BytesIO(), model) == expected
    assert npz.read(written).digest == npz.read_digest(written) == expected


def test_numpy_reads_an_artifact_without_pickle(model: Model, written: Path) -> None:
    assert model.golden is not None
    with np.load(written, allow_pickle=False) as arrays:
        for name, array in {**model.network.arrays(), "golden.outputs": model.golden.outputs}.items():
            np.testing.assert_array_equal(arrays[name], array, strict=True)
        assert json.loads(arrays["__manifest__"].tobytes()) == npz.read_manifest(written)


def test_an_artifact_is_a_plain_zip_archive(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        members = archive.infolist()
        assert archive.testzip() is None
        assert archive.comment == b""
    names = [member.filename for member in members]
    assert names[0] == "__manifest__.npy"
    assert names[1:] == sorted(names[1:])
    for member in members:
        assert member.compress_type == zipfile.ZIP_STORED
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert (member.flag_bits, member.external_attr, member.comment, member.extra) == (0, 0, b"", b"")


def test_arrays_are_read_only_views_of_the_file_aligned_to_64_bytes(written: Path) -> None:
    for array in npz.read(written).network.arrays().values():
        assert array.__array_interface__["data"][0] % 64 == 0
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_manifest_is_canonical_and_independent_of_the_machine(written: Path) -> None:
    with np.load(written) as arrays:
        text = arrays["__manifest__"].tobytes()
    manifest = json.loads(text)
    assert text == json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert set(manifest) == {
        *("format", "producer", "description", "dtype", "layers"),
        *("signature", "training", "golden", "arrays"),
    }
    assert np.__version__ not in text.decode()


def test_the_producer_is_the_package_with_its_version(written: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert npz.read_manifest(written)["producer"] == f"{project['name']} {project['version']}"


def test_no_file_descriptor_stays_open_after_the_model_is_deleted(written: Path) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    models = [npz.read(written) for _ in range(3)]
    assert all(model.digest for model in models)
    del models
    npz.read_manifest(written)
    assert descriptors() == before


def test_a_model_works_after_its_file_is_unlinked(model: Model, written: Path) -> None:
    found = npz.read(written)
    written.unlink()
    gc.collect()
    assert equal(model, found)


def test_golden_rows_are_optional(make_model, tmp_path: Path) -> None:
    complete = make_model()
    model = Model(complete.network, complete.signature)
    npz.write(tmp_path / "m.npz", model)
    assert npz.read(tmp_path / "m.npz").golden is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_write_rejects_weights_that_are_not_finite(model: Model, value: float, tmp_path: Path) -> None:
    model.network.arrays()["modules.2.weights"][1, 1] = value
    with pytest.raises(ArtifactError, match=r"modules\.2\.weights: expected finite numbers"):
        npz.write(tmp_path / "m.npz", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("training", [{"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}, {(1,): 2}])
def test_write_rejects_a_training_record_that_is_not_json(model: Model, training: dict, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="manifest: expected"):
        npz.write(tmp_path / "m.npz", Model(model.network, model.signature, training=training))
    assert list(tmp_path.iterdir()) == []


class Tanh(nn.Tanh):
    """A class whose formula differs from the layer that a reader builds for its name."""

    def activation(self, inputs: np.ndarray) -> np.ndarray:
        return 2 * super().activation(inputs)


PLAIN = Signature((NumberColumn("a"), NumberColumn("b")), RegressionOutput(("y",), (0.0,), (1.0,)))


@pytest.mark.parametrize(
    ("modules", "signature", "expected"),
    [
        ([nn.Linear(2, 1), Tanh()], PLAIN, r"modules\.1: expected one of Linear, .*; found Tanh of .*test_npz"),
        ([nn.Sequential([nn.Linear(2, 1)])], PLAIN, r"modules\.0: expected .*; found Sequential of"),
        (
            [nn.Linear(2, 2), nn.Linear(2, 1, dtype=np.float64)],
            PLAIN,
            r"modules\.1\.weights: expected float32, like the first array; found float64",
        ),
        (
            [nn.Linear(2, 1)],
            Signature((NumberColumn("a", scale=0.0), NumberColumn("b")), PLAIN.output),
            r"signature\.inputs\.0: .*expected a number above 0",
        ),
        (
            [nn.Linear(2, 1)],
            Signature((NumberColumn("a"), NumberColumn("a")), PLAIN.output),
            "inputs: expected unique names",
        ),
    ],
)
def test_write_rejects_a_model_that_a_reader_would_reject_or_misread(
    modules: list[nn.Module], signature: Signature, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=expected):
        npz.write(tmp_path / "m.npz", Model(nn.Sequential(modules), signature))
    assert list(tmp_path.iterdir()) == []


def test_a_model_above_the_size_limit_is_rejected(model: Model, written: Path, monkeypatch) -> None:
    monkeypatch.setattr(npz, "MAX_FILE_BYTES", written.stat().st_size - 1)
    with pytest.raises(ArtifactError, match=r"file: expected .* bytes at most"):
        npz.write(io.BytesIO(), model)
    with pytest.raises(ArtifactError, match="found a file of"):
        npz.read(written)


def test_a_failed_write_keeps_the_existing_file(model: Model, written: Path, monkeypatch) -> None:
    before = written.read_bytes()
    monkeypatch.setattr(npz.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    with pytest.raises(OSError, match="no space"):
        npz.write(written, model)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    dtype=st.sampled_from(["float32", "float64"]),
    description=st.text(max_size=40),
    training=st.dictionaries(st.text(), _JSON, max_size=4),
    rows=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_model_is_read_unchanged(tmp_path_factory, sizes, dtype, description, training, rows, seed) -> None:
    path = tmp_path_factory.mktemp("artifact") / "m.npz"
    rng = np.random.default_rng(seed)
    layers = [{"type": "Linear", "input_size": a, "output_size": b} for a, b in itertools.pairwise(sizes)]
    network = build(layers, dtype, rng=rng)
    names = tuple(f"y{i}" for i in range(sizes[-1]))
    inputs = tuple(NumberColumn(f"x{i}", rng.normal(), 1 + rng.random()) for i in range(sizes[0]))
    signature = Signature(inputs, RegressionOutput(names, (0.0,) * len(names), (1.0,) * len(names)))
    instances = rng.normal(size=(rows, sizes[0])).tolist()
    golden = Golden(instances, network(signature.encode(instances, dtype=dtype))) if rows else None
    model = Model(network, signature, description, training, golden)
    digest = npz.write(path, model)
    found = npz.read(path)
    assert equal(model, found)
    assert found.digest == digest
    assert as_bytes(found) == path.read_bytes()
    with np.load(path) as arrays:
        assert len(arrays.files) == 1 + 2 * len(layers) + bool(rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conformal_scores_are_saved_and_rounded_up(tmp_path: Path, dtype: str) -> None:
    scores = np.sort(np.random.default_rng(0).random((1, 50)))
    scale = LocalScale(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    conformal = Conformal("normalized", scores, (scale,)).astype(np.dtype(dtype))
    assert (conformal.scores >= scores).all()
    assert conformal.scores == pytest.approx(scores, rel=1e-6)
    network = Sequential([Linear(1, 1, dtype=dtype)])
    signature = Signature((NumberColumn("x", 0.0, 1.0),), RegressionOutput(("y",), (0.0,), (1.0,)))
    model = Model(network, signature, answers=Answers(conformal=conformal))
    path = tmp_path / "m.npz"
    npz.write(path, model)
    found = npz.read(path)
    assert found.baseline is None
    assert found.conformal is not None
    values = np.array([[0.3], [5.0]])
    assert np.array_equal(found.conformal.intervals(values, 0.9), conformal.intervals(values, 0.9))
