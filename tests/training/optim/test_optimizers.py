"""Optimizers: every step equals PyTorch's, on one vector or many arrays, in pieces or whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.nn import (
    Array,
    FeatureScale,
    Linear,
    Module,
    ParametricActivation,
    PeriodicEmbedding,
    Sequential,
    Tanh,
)
from training import MSE, SGD, Adam, AdamW, Optimizer, RMSProp, train
from training.engine.checkpoint import Checkpoint
from training.optim import base
from training.optim.lr_schedulers import (
    Cosine,
    CosLog4,
    FlatCosine,
    OneCycle,
    OnPlateau,
    Schedule,
    ScheduleContext,
    StepDecay,
    WarmUp,
)
from training.optim.optimizers import OPTIMIZERS
from training.optim.parameter_groups import group_factors, ntk_factors

Make = Callable[[Module], Optimizer]
PYTORCH = np.load(Path(__file__).parents[2] / "fixtures" / "pytorch_steps.npz")

SAME_AS: dict[str, Make] = {
    "sgd": lambda m: SGD(m, 0.1, 0),
    "sgd-momentum": lambda m: SGD(m, 0.1, 0.9),
    "sgd-nesterov": lambda m: SGD(m, 0.1, 0.9, nesterov=True),
    "sgd-decay": lambda m: SGD(m, 0.1, 0.9, weight_decay=0.02),
    "adam": lambda m: Adam(m, 0.05),
    "adam-betas": lambda m: Adam(m, 0.05, beta1=0.8, beta2=0.95, epsilon=1e-3),
    "adam-decay": lambda m: Adam(m, 0.05, weight_decay=0.02),
    "adamw": lambda m: AdamW(m, 0.05),
    "adamw-decay": lambda m: AdamW(m, 0.05, weight_decay=0.3),
    "rmsprop": lambda m: RMSProp(m, 0.05),
    "rmsprop-momentum": lambda m: RMSProp(m, 0.05, 0.9, smoothing=0.9, epsilon=1e-4, weight_decay=0.02),
    "clip-norm": lambda m: SGD(m, 0.1, 0.9, clip_norm=0.3),
    "clip-norm-decay": lambda m: Adam(m, 0.05, clip_norm=0.3, weight_decay=0.02),
    "clip-value": lambda m: SGD(m, 0.1, 0.9, clip_value=0.05),
}


class Arrays(Module):
    """Parameters of any shape that are not one vector; one is a single number."""

    def __init__(self, *arrays: Array) -> None:
        self.arrays_, self.gradients_ = list(arrays), [np.zeros_like(array) for array in arrays]

    def parameters(self) -> list[Array]:
        return self.arrays_

    def gradients(self) -> list[Array]:
        return self.gradients_


def network() -> Sequential:
    rng = np.random.default_rng(0)
    net = Sequential([Linear(3, 4, dtype=np.float64, rng=rng), Tanh(), Linear(4, 2, dtype=np.float64, rng=rng)])
    start = 0
    for array in net.parameters():
        array[...] = PYTORCH["first"][start : start + array.size].reshape(array.shape)
        start += array.size
    return net


def test_an_optimizer_of_another_module_is_rejected() -> None:
    net, x, y = network(), PYTORCH["x"], PYTORCH["y"]
    with pytest.raises(ValueError, match=r"Adam: expected an optimizer of the module, found one of another module"):
        train(net, x, y, MSE(), Adam(network()), 1, on_epoch=None)
    optimizer = Adam(net)
    Sequential([net.modules[0], Tanh()])  # as it lies in the network
    train(net, x, y, MSE(), optimizer, 1, on_epoch=None)
    Sequential([net.modules[2], Linear(2, 1, dtype=np.float64)])
    with pytest.raises(
        ValueError, match=r"Adam: expected .*, found one whose parameters have moved .*; create it again"
    ):
        train(net, x, y, MSE(), optimizer, 1, on_epoch=None)


def test_an_optimizer_of_a_part_changes_only_that_part() -> None:
    net = network()
    before = [array.copy() for array in net.parameters()]
    train(net, PYTORCH["x"], PYTORCH["y"], MSE(), SGD(net.modules[2]), 1, on_epoch=None)
    changed = [bool((was != array).any()) for was, array in zip(before, net.parameters(), strict=True)]
    assert changed == [False, False, True, True]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_optimizer_cannot_be_copied(copied: Callable[[Any], Any]) -> None:
    net = network()
    with pytest.raises(
        TypeError, match=r"SGD: expected no copy, .*; create a SGD for the other and call load_state\(\)"
    ):
        copied((net, SGD(net))) if copied is not copy.copy else copied(SGD(net))


def vector(net: Sequential) -> Array:
    assert net.parameter_vector is not None
    return net.parameter_vector


def test_every_optimizer_is_compared_with_pytorch() -> None:
    made = {type(make(network())) for make in SAME_AS.values()}
    assert made == set(OPTIMIZERS.values())


@pytest.mark.parametrize("name", SAME_AS)
def test_ten_steps_equal_pytorchs(name: str) -> None:
    net = network()
    found: list[Array] = []

    def on_epoch(*_: Any) -> None:
        found.append(np.concatenate([array.reshape(-1) for array in net.parameters()]))

    x, y = PYTORCH["x"], PYTORCH["y"]
    train(net, x, y, MSE(), SAME_AS[name](net), 10, len(x), on_epoch=on_epoch)
    np.testing.assert_allclose(found, PYTORCH[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("step", StepDecay(3, 0.5)),
        ("cosine", Cosine(0.1)),
        ("one-cycle", OneCycle()),
        ("warm-up", WarmUp(2, Cosine(), start=0.1)),
        ("flat-cos", FlatCosine()),
        ("coslog4", CosLog4()),
    ],
)
def test_the_rates_of_a_schedule_equal_pytorchs(name: str, schedule: Schedule) -> None:
    found = [0.2 * schedule.factor(step, ScheduleContext(60, 5)) for step in range(60)]
    np.testing.assert_allclose(found, PYTORCH[name], rtol=1e-9, atol=1e-12)


GROUPS: dict[str, Callable[..., Optimizer]] = {
    "sgd-groups": lambda m, **factors: SGD(m, 0.1, 0.9, weight_decay=0.3, **factors),
    "adam-groups": lambda m, **factors: Adam(m, 0.05, weight_decay=0.3, **factors),
    "adamw-groups": lambda m, **factors: AdamW(m, 0.05, weight_decay=0.3, **factors),
    "adamw-schedules": lambda m, **factors: AdamW(m, 0.05, beta2=0.95, weight_decay=0.3, **factors),
}


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("name", GROUPS)
def test_steps_of_parameter_groups_equal_pytorchs(name: str, in_pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases take a tenth of the learning rate and do not decay."""
    if in_pieces:
        monkeypatch.setattr(base, "_PIECE_VALUES", 5)
    net = network()
    found: list[Array] = []
    factors = group_factors(net, {"bias": 0.1}), group_factors(net, {"bias": 0})
    optimizer = GROUPS[name](net, rate_factors=factors[0], decay_factors=factors[1])
    schedules = (CosLog4(), FlatCosine()) if name == "adamw-schedules" else (None, None)

    def on_epoch(*_: Any) -> None:
        found.append(np.concatenate([array.reshape(-1) for array in net.parameters()]))

    x, y = PYTORCH["x"], PYTORCH["y"]
    train(
        net, x, y, MSE(), optimizer, 10, len(x),
        on_epoch=on_epoch, schedule=schedules[0], regularization_schedule=schedules[1],
    )  # fmt: skip
    np.testing.assert_allclose(found, PYTORCH[name], rtol=1e-9, atol=1e-12)
    assert optimizer.decay_scale == 1


@pytest.mark.parametrize("normalized", [True, False])
def test_the_neural_tangent_parametrization_is_a_factor_of_the_learning_rate(normalized: bool) -> None:
    """PyTorch multiplied the outputs of standard normal weights by 1/√inputs, and took ten steps."""
    net = network()
    factors = ntk_factors(net, normalized=normalized)
    assert factors == pytest.approx([3**-0.5, 1, 4**-0.5, 1] if normalized else [1 / 3, 1, 1 / 4, 1])
    optimizer: Optimizer = SGD(net, 0.1, 0, rate_factors=factors)
    if normalized:
        optimizer = AdamW(net, 0.05, epsilon=1e-14, weight_decay=0.3, rate_factors=factors, decay_factors=[1] * 4)
    train(net, PYTORCH["x"], PYTORCH["y"], MSE(), optimizer, 10, 8, on_epoch=None)
    found = np.concatenate([array.reshape(-1) for array in net.parameters()])
    np.testing.assert_allclose(found, PYTORCH["ntk"][0 if normalized else 1], rtol=1e-9, atol=1e-12)


def test_groups_are_layers_and_the_arrays_of_others() -> None:
    layers = [PeriodicEmbedding(3, [0]), FeatureScale(6), Linear(6, 4), Sequential([Linear(4, 2)])]
    layers.insert(3, ParametricActivation(4))
    factors = {"bias": 0.1, "periodic": 0.2, "feature_scale": 6, "parametric": 0.5}
    assert group_factors(Sequential(layers), factors) == [*[0.2] * 4, 6, 1, 0.1, 0.5, 1, 0.1]


@pytest.mark.parametrize("factors", [[1.0], [1, 1, 1, -1]])
def test_factors_that_do_not_fit_the_parameters_are_rejected(factors: list[float]) -> None:
    with pytest.raises(ValueError, match=r"SGD.rate_factors: expected 4 numbers of at least 0, one for each array"):
        SGD(network(), rate_factors=factors)


def test_a_plateau_equals_pytorchs() -> None:
    schedule = OnPlateau(patience=1, decay=0.5, threshold=1e-3, cooldown=2, min_factor=0.15)
    found = []
    for error in PYTORCH["errors"]:
        schedule.on_epoch_end(error)
        found.append(0.2 * schedule.factor(0, ScheduleContext(20, 1)))
    np.testing.assert_allclose(found, PYTORCH["plateau"], rtol=1e-12)


@pytest.mark.parametrize("name", SAME_AS)
def test_a_step_in_pieces_or_on_separate_arrays_equals_one_on_a_vector(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    first = rng.standard_normal(26)

    def arrays() -> Arrays:
        parts = [first[:12].reshape(4, 3), first[12:24].reshape(2, 3, 2), first[24:25], np.array(first[25])]
        return Arrays(*(part.copy() for part in parts))

    whole, apart = Arrays(first.copy()), arrays()
    one, many = SAME_AS[name](whole), SAME_AS[name](apart)
    monkeypatch.setattr(base, "_PIECE_VALUES", 7)
    in_pieces = Arrays(first.copy())
    pieces = SAME_AS[name](in_pieces)
    for _ in range(5):
        gradients = rng.standard_normal(26)
        for module, optimizer in ((whole, one), (apart, many), (in_pieces, pieces)):
            start = 0
            for gradient in module.gradients():
                gradient[...] = gradients[start : start + gradient.size].reshape(gradient.shape)
                start += gradient.size
            optimizer.step()
    for module in (apart, in_pieces):
        found = np.concatenate([array.reshape(-1) for array in module.parameters()])
        np.testing.assert_allclose(found, whole.parameters()[0], rtol=1e-13)


@pytest.mark.parametrize("name", SAME_AS)
def test_a_training_resumed_from_a_state_has_the_same_bits(name: str) -> None:
    whole, first, second = network(), network(), network()
    x, y = PYTORCH["x"], PYTORCH["y"]
    train(whole, x, y, MSE(), SAME_AS[name](whole), 6, 4, on_epoch=None)
    optimizer = SAME_AS[name](first)
    train(first, x, y, MSE(), optimizer, 4, 4, on_epoch=None)
    vector(second)[:] = vector(first)
    resumed = SAME_AS[name](second)
    resumed.load_state(optimizer.state())
    train(second, x, y, MSE(), resumed, 2, 4, on_epoch=None)
    assert vector(second).tolist() == vector(whole).tolist()


@pytest.mark.parametrize("name", SAME_AS)
def test_a_training_killed_in_its_schedule_resumes_to_the_same_bits(tmp_path: Path, name: str) -> None:
    class Killed(BaseException):
        pass

    class Mortal(Checkpoint):
        def save(self) -> None:
            super().save()
            raise Killed

    def run(checkpoint: Checkpoint | None) -> Array:
        net, schedule = network(), WarmUp(0.5, OneCycle())
        rng = np.random.default_rng(2)
        train(
            net, PYTORCH["x"], PYTORCH["y"], MSE(), SAME_AS[name](net), 2, 3,
            rng=rng, schedule=schedule, checkpoint=checkpoint, on_epoch=None,
        )  # fmt: skip
        return vector(net)

    path = tmp_path / "c.npz"
    for step in range(6):
        with pytest.raises(Killed):
            run(Mortal(path, {}, resume=step > 0, seconds=0))
    assert run(Checkpoint(path, {}, resume=True)).tolist() == run(None).tolist()


def test_a_state_is_a_copy_and_another_optimizers_is_rejected() -> None:
    net = network()
    optimizer = SGD(net)
    state = optimizer.state()
    train(net, PYTORCH["x"], PYTORCH["y"], MSE(), optimizer, 1, on_epoch=None)
    assert not state["velocity.0"].any()
    with pytest.raises(ValueError, match=r"Adam\.state: expected \['steps', 'means\.0', 'mean_squares\.0'\], found \["):
        Adam(net).load_state(state)
    with pytest.raises(ValueError, match=r"SGD\.state\.velocity\.0: expected float64 \(26,\), found float32 \(26,\)"):
        optimizer.load_state({**state, "velocity.0": state["velocity.0"].astype(np.float32)})


@pytest.mark.parametrize("name", SAME_AS)
def test_a_step_does_not_change_gradients_or_allocate_memory(name: str) -> None:
    module = Arrays(np.zeros(100_000, np.float32))
    optimizer = SAME_AS[name](module)
    gradients = module.gradients()[0]
    gradients[:] = np.linspace(-1, 1, 100_000)
    before = gradients.copy()
    optimizer.step()
    import tracemalloc

    tracemalloc.start()
    for _ in range(3):
        optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (gradients == before).all()
    assert peak < 10_000


@pytest.mark.parametrize("make", OPTIMIZERS.values())
def test_float32_stays_float32_and_a_new_rate_applies_at_once(make: Callable[..., Optimizer]) -> None:
    module = Arrays(np.ones(3, np.float32))
    optimizer = make(module, 0.5)
    module.gradients()[0][:] = 1
    optimizer.learning_rate = 0.0
    optimizer.step()
    assert optimizer.parameters[0].dtype == np.float32
    assert optimizer.parameters[0].tolist() == [1, 1, 1]
    optimizer.learning_rate = 0.5
    optimizer.step()
    assert (optimizer.parameters[0] < 1).all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_new_rate_multiplies_the_gradients_and_leaves_the_velocity(nesterov: bool) -> None:
    """Compared with the formula, for scaled and for unscaled steps."""
    rates = [0.1, 0.1, 0.0, 0.0, 0.0, 0.3, 0.3, 0.01]
    plain, scaled = (Arrays(np.linspace(-1, 1, 5)) for _ in range(2))
    optimizers = [SGD(module, 0.2, 0.9, nesterov) for module in (plain, scaled)]
    w, v = np.linspace(-1, 1, 5), np.zeros(5)
    for i, rate in enumerate(rates):
        g = np.cos(np.arange(5.0) + i)
        v = 0.9 * v + rate * g
        w = w - (rate * g + 0.9 * v if nesterov else v)
        for optimizer in optimizers:
            optimizer.learning_rate = rate
        plain.gradients()[0][:] = g
        optimizers[0].step()
        scaled.gradients()[0][:] = g * optimizers[1].gradient_scale
        optimizers[1].scaled_step()
        for module in (plain, scaled):
            np.testing.assert_allclose(module.parameters()[0], w, rtol=1e-12, atol=1e-14)


def textbook(name: str, w: Array, gradients: list[Array], clip: float | None, decay: float) -> Array:
    """Return w after a step by each gradient, as the books write the rule."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        if clip is not None:
            g = g * min(1, clip / (np.linalg.norm(g) + 1e-6))
        if name == "adamw":
            w = w * (1 - 0.05 * decay)
        else:
            g = g + decay * w
        if name.startswith("sgd"):
            v = (0.9 if name == "sgd" else 0) * v + 0.05 * g
            w = w - v
        elif name == "rmsprop":
            v = 0.99 * v + 0.01 * g**2
            w = w - 0.05 * g / (np.sqrt(v) + 1e-8)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@given(
    st.sampled_from(["sgd", "sgd-plain", "rmsprop", "adam", "adamw"]),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
    st.integers(1, 12),
    st.sampled_from([None, 0.5]),
    st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=150, deadline=None)
def test_steps_in_pieces_of_any_size_equal_the_textbooks(
    name: str, lengths: list[int], piece: int, clip: float | None, decay: float
) -> None:
    """With arrays that end before, at and behind the borders of pieces, and a norm that is measured in pieces, too."""
    rng = np.random.default_rng(0)
    borders = np.cumsum(lengths)[:-1]
    first = rng.standard_normal(sum(lengths))
    gradients = [rng.standard_normal(len(first)) * 10.0 ** rng.integers(-3, 3) for _ in range(4)]
    module = Arrays(*(part.copy() for part in np.split(first, borders)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_PIECE_VALUES", piece)
        kind, options = (SGD, {"momentum": 0.0}) if name == "sgd-plain" else (OPTIMIZERS[name], {})
        optimizer = kind(module, 0.05, clip_norm=clip, weight_decay=decay, **options)
    for g in gradients:
        for array, part in zip(module.gradients(), np.split(g, borders), strict=True):
            array[:] = part
        optimizer.step()
    found = np.concatenate(module.parameters())
    np.testing.assert_allclose(found, textbook(name, first, gradients, clip, decay), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", SAME_AS)
def test_a_state_of_an_older_version_continues_as_it_was(name: str) -> None:
    """Older versions stored `m / (1 - beta1)` and `v / (1 - beta2)`, RMSProp likewise, and SGD the rate."""
    whole, first, second = network(), network(), network()
    x, y = PYTORCH["x"], PYTORCH["y"]
    train(whole, x, y, MSE(), SAME_AS[name](whole), 6, 4, on_epoch=None)
    optimizer = SAME_AS[name](first)
    train(first, x, y, MSE(), optimizer, 4, 4, on_epoch=None)
    vector(second)[:] = vector(first)
    state = optimizer.state()
    if isinstance(optimizer, SGD):
        state["rate"] = np.array(0.1)
    else:
        beta2 = optimizer.beta2 if isinstance(optimizer, Adam) else optimizer.smoothing
        state["squares.0"] = state.pop("mean_squares.0") / (1 - beta2)
        if isinstance(optimizer, Adam):
            state["means.0"] /= 1 - optimizer.beta1
        elif optimizer.momentum:
            state["velocity.0"] *= np.sqrt(1 - beta2)
    resumed = SAME_AS[name](second)
    resumed.load_state(state)
    train(second, x, y, MSE(), resumed, 2, 4, on_epoch=None)
    np.testing.assert_allclose(vector(second), vector(whole), rtol=1e-13)


def test_a_subclass_with_its_own_step_gets_unscaled_gradients() -> None:
    class Watched(SGD):
        seen: ClassVar[list[Array]] = []

        def step(self) -> None:
            self.seen.append(self.gradients[0].copy())
            super().step()

    net, by_hand = network(), network()
    x, y = PYTORCH["x"], PYTORCH["y"]
    train(net, x, y, MSE(), Watched(net, 0.125), 1, len(x), on_epoch=None)
    by_hand.backward(MSE().loss_prime(y, by_hand.forward(x)))
    np.testing.assert_allclose(Watched.seen[0], by_hand.gradient_vector, rtol=1e-12)


def test_a_custom_optimizer_needs_only_a_step() -> None:
    class Signs(Optimizer):
        def step(self) -> None:
            for w, g in zip(self.parameters, self.gradients, strict=True):
                w -= self.learning_rate * np.sign(g)

    net = network()
    errors = train(net, PYTORCH["x"], PYTORCH["y"], MSE(), Signs(net), 20, 8, schedule=Cosine(), on_epoch=None)
    assert errors[-1] < errors[0]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda m: Adam(m, 0), r"Adam\.learning_rate: expected a number above 0, found 0"),
        (lambda m: Adam(m, beta1=1), r"Adam\.beta1: expected a number in \[0, 1\), found 1"),
        (lambda m: AdamW(m, weight_decay=-1), r"AdamW\.weight_decay: expected a number of at least 0, found -1"),
        (lambda m: RMSProp(m, smoothing=1), r"RMSProp\.smoothing: expected"),
        (lambda m: RMSProp(m, epsilon=0), r"RMSProp\.epsilon: expected a number above 0"),
        (lambda m: SGD(m, 0.1, 0, nesterov=True), r"SGD\.nesterov: expected a momentum above 0 to go with it, found 0"),
        (lambda m: SGD(m, clip_norm=0), r"SGD\.clip_norm: expected a number above 0, found 0"),
        (lambda m: SGD(m, clip_value=-1), r"SGD\.clip_value: expected"),
    ],
)
def test_an_error_names_an_invalid_number(make: Make, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(network())
