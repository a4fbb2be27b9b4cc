"""Integrated gradients: equal to Captum's, additive for any network, and computed without state that threads share."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import Average, Sequential, Softmax, build
from model_store.nn.cost import layer_cost
from model_store.nn.integrated_gradients import ExplanationTooLargeError, integrated_gradients, max_explained_rows

CAPTUM = Path(__file__).parents[2] / "fixtures" / "captum.npz"
with np.load(CAPTUM) as _arrays:
    CASES = sorted({name.partition("/")[0] for name in _arrays.files})


@pytest.fixture(scope="module")
def captum() -> dict[str, np.ndarray]:
    with np.load(CAPTUM) as arrays:
        return dict(arrays)


def read_case(captum: dict[str, np.ndarray], name: str, dtype: str = "float64") -> tuple[Sequential, dict]:
    case = {key.partition("/")[2]: value for key, value in captum.items() if key.startswith(f"{name}/")}
    arrays = {
        key.removeprefix("before/"): value.astype(dtype) for key, value in case.items() if key.startswith("before/")
    }
    return build(json.loads(case["config"].item()), dtype, arrays=arrays), case


@pytest.mark.parametrize("name", CASES)
def test_contributions_are_those_of_captum(captum: dict[str, np.ndarray], name: str) -> None:
    network, case = read_case(captum, name)
    found = integrated_gradients(
        network, case["x"].reshape(len(case["x"]), -1), case["baseline"].ravel(), case["outputs"]
    )
    expected = case["attributions"].reshape(len(found), -1)
    if name == "embedding":  # Captum's are those of the layer's outputs: the others, then the vectors
        layer = network.modules[0]
        vectors = expected[:, layer.others_size :].reshape(len(found), -1, layer.size).sum(axis=2)
        others, expected = expected[:, : layer.others_size], np.empty_like(found)
        expected[:, layer.is_other()], expected[:, layer.chosen] = others, vectors
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_contributions_add_up_to_the_difference_of_the_outputs(
    captum: dict[str, np.ndarray], name: str, dtype: str
) -> None:
    network, case = read_case(captum, name, dtype)
    x, baseline = case["x"].reshape(len(case["x"]), -1).astype(dtype), case["baseline"].ravel().astype(dtype)
    found = integrated_gradients(network, x, baseline, case["outputs"])
    expected = (network(x) - network(baseline[None]))[np.arange(len(x)), case["outputs"]]
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-3, atol=1e-5 if dtype == "float32" else 1e-9)


def _layer(name: str, size: int) -> dict:
    fields = {"LeakyReLU": {"slope": 0.2}, "ELU": {"alpha": 1.0}, "LayerNorm": {"size": size, "epsilon": 1e-5}}
    fields["ParametricActivation"] = {"size": size, "activation": "selu"}
    return {"type": name, **fields.get(name, {})}


ELEMENT_WISE = ["Tanh", "ReLU", "LeakyReLU", "GELU", "ExactGELU", "SiLU", "ELU", "SELU", "Mish", "Softplus"]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=3, max_size=5),
    kinds=st.lists(
        st.sampled_from([*ELEMENT_WISE, "SmoothClip", "LayerNorm", "ParametricActivation"]), min_size=4, max_size=4
    ),
    last=st.sampled_from(["Softmax", "Identity", "Exp", "Sigmoid"]),
    scale=st.floats(0.1, 4),
    members=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_network_has_contributions_that_add_up(sizes, kinds, last, scale, members, seed) -> None:
    rng = np.random.default_rng(seed)
    layers = []
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        layers += [{"type": "Linear", "input_size": before, "output_size": after}, _layer(kinds[i], after)]
    layers += [_layer(last, sizes[-1])]
    networks = [build(layers, "float64", rng=rng) for _ in range(members)]
    network = networks[0] if members == 1 else Sequential([Average(networks)])
    x, baseline = scale * rng.standard_normal((3, sizes[0])), rng.standard_normal(sizes[0])
    outputs = rng.integers(sizes[-1], size=3)
    found = integrated_gradients(network, x, baseline, outputs)
    expected = (network(x) - network(baseline[None]))[np.arange(3), outputs]
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-6, atol=1e-9)


def test_a_linear_network_contributes_its_weights_times_the_change() -> None:
    network = build([{"type": "Linear", "input_size": 3, "output_size": 2}], "float64", rng=np.random.default_rng(0))
    x, baseline = np.array([[1.0, 2.0, 3.0]]), np.array([0.5, 2.0, 1.0])
    found = integrated_gradients(network, x, baseline, np.array([1]))
    np.testing.assert_allclose(found, network.modules[0].weights[1] * (x - baseline))


def test_a_function_of_the_output_is_explained_in_its_units() -> None:
    network = build([{"type": "Linear", "input_size": 2, "output_size": 1}], "float64", rng=np.random.default_rng(0))
    x, baseline = np.array([[1.0, 2.0]]), np.zeros(2)
    found = integrated_gradients(network, x, baseline, np.array([0]), np.exp)
    np.testing.assert_allclose(found.sum(), np.exp(network(x))[0, 0] - np.exp(network(baseline[None]))[0, 0])


def test_the_baseline_itself_has_no_contributions(captum: dict[str, np.ndarray]) -> None:
    for name in CASES:
        network, case = read_case(captum, name, "float32")
        baseline = case["baseline"].ravel().astype(np.float32)
        assert not integrated_gradients(network, baseline[None], baseline, np.array([0])).any()


def test_features_that_were_constant_in_training_contribute_nothing() -> None:
    layers = [
        {"type": "ConstantInputs", "size": 2},
        {"type": "Linear", "input_size": 2, "output_size": 1},
    ]
    network = build(layers, "float64", rng=np.random.default_rng(0))
    network.modules[0].constant, network.modules[0].values = [0, 1], [0, 3]
    found = integrated_gradients(network, np.array([[1.0, 9.0]]), np.zeros(2), np.array([0]))
    assert found[0, 0] != 0
    assert found[0, 1] == 0


def test_paths_in_pieces_give_the_same_contributions(
    captum: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images", "embedding", "norms"):
        network, case = read_case(captum, name)
        x, baseline = case["x"].reshape(len(case["x"]), -1), case["baseline"].ravel()
        whole = integrated_gradients(network, x, baseline, case["outputs"])
        monkeypatch.setattr("model_store.nn.integrated_gradients._BATCH_BYTES", 1)
        pieces = integrated_gradients(network, x, baseline, case["outputs"])
        monkeypatch.undo()
        np.testing.assert_allclose(pieces, whole, rtol=1e-9, atol=1e-12)


def test_a_network_that_keeps_too_much_memory_is_refused(
    captum: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, case = read_case(captum, "images")
    monkeypatch.setattr("model_store.nn.integrated_gradients.MAX_KEPT_BYTES", 1000)
    with pytest.raises(ExplanationTooLargeError, match="expected a network whose layers keep 1000 bytes"):
        integrated_gradients(network, case["x"].reshape(4, -1), case["baseline"].ravel(), case["outputs"])


def test_the_rows_to_explain_are_limited_by_what_their_passes_take() -> None:
    def network(*layers: dict, members: int = 1) -> Sequential:
        made = [build(list(layers), "float32", rng=np.random.default_rng(0)) for _ in range(members)]
        return made[0] if members == 1 else Sequential([Average(made)])

    dense = {"type": "Linear", "input_size": 64, "output_size": 64}
    plain = max_explained_rows(network(dense), 10**9)
    deep = max_explained_rows(network(*[dense, _layer("GELU", 64)] * 100), 10**9)
    mixing = max_explained_rows(network(*[dense, _layer("LayerNorm", 64)] * 100), 10**10)
    assert plain > 100 > max_explained_rows(network(*[dense] * 9, members=9), 10**9) > deep
    assert max_explained_rows(network(*[dense, _layer("GELU", 64)] * 100), 10**10) > mixing > 0
    assert max_explained_rows(network(dense), 10**5) == 0
    pool = {"type": "MaxPool2D", "input_shape": [60, 60, 1], "stride": [1, 1]}

    def pooled(size: int) -> tuple[Sequential, int]:
        side = 61 - size
        ends = {"type": "Flatten", "input_shape": [side, side, 1]}, dense | {"input_size": side**2}
        made = network(pool | {"size": size}, *ends)
        return made, layer_cost(made.modules[0], (60, 60, 1), (side, side, 1), made.dtype).operations

    (small, _), (large, operations) = pooled(3), pooled(30)
    few = max_explained_rows(large, 10**10)
    assert max_explained_rows(small, 10**10) > 10 * few > 0
    assert few <= 10**10 / (12 * 52 * operations)  # each of 52 points visits the windows 12 times
    counts = [max_explained_rows(network(dense), operations) for operations in range(10**6, 10**8, 10**6)]
    assert counts == sorted(counts)


def test_layers_of_any_width_are_explained_without_the_shape_of_their_input() -> None:
    network = Sequential([Softmax()])
    x, baseline = np.array([[1.0, 2.0, 3.0]]), np.zeros(3)
    found = integrated_gradients(network, x, baseline, np.array([2]))
    np.testing.assert_allclose(found.sum(), (network(x) - network(baseline[None]))[0, 2], rtol=1e-6)


def test_threads_that_share_a_network_get_the_bits_of_one_alone(captum: dict[str, np.ndarray]) -> None:
    """Beside them others predict: neither changes the arrays or the state of the network."""
    network, case = read_case(captum, "images", "float32")
    before = {name: array.copy() for name, array in network.arrays().items()}
    rng = np.random.default_rng(0)
    x, baseline = rng.standard_normal((8, 6, 112)).astype(np.float32), case["baseline"].ravel().astype(np.float32)
    outputs = np.arange(6) % 3
    alone = [integrated_gradients(network, rows, baseline, outputs) for rows in x]
    predicted = network(x[0])
    state = [dict(vars(module)) for module in network.modules]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = pool.map(lambda rows: integrated_gradients(network, rows, baseline, outputs), x)
            answers = pool.map(network, [x[0]] * 8)
            for expected, contributions in zip(alone, found, strict=True):
                np.testing.assert_array_equal(contributions, expected)
            assert all((one == predicted).all() for one in answers)
    assert all(
        vars(module).keys() == kept.keys() and all(vars(module)[key] is value for key, value in kept.items())
        for module, kept in zip(network.modules, state, strict=True)
    )
    for name, array in network.arrays().items():
        np.testing.assert_array_equal(array, before[name])
