"""The optimizer: a rule that changes parameters w by their gradients g.

A rule is written as in the textbook, `update`, an expression that returns the new w. It is traced once into NumPy calls
that work in place (see training/tracer.py), so a step allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NoReturn, SupportsIndex, TypedDict, Unpack

import numpy as np

from model_store.nn import Array, Module, Sequential
from model_store.nn.arrays import aligned_zeros
from training.stored_arrays import checked_count
from training.tracer import Call, Tracer, call_into, scalar

# A long vector is stepped in pieces that stay in the cache from one call to the next. Measured with 6.3 million float32
# and 1 MB of L2 (EPYC of family 25): SGD 4.2 ms whole, 2.9 in pieces of 1 MB, 3.6 in 384 kB, 4.2 in 128 kB; Adam 14.3,
# 9.2, 9.7 and 10.6. Every call on a piece begins two or three streams from memory; long ones are worth more than L2.
_PIECE_VALUES = 262_144


class OptimizerOptions(TypedDict, total=False):
    """Changes to the gradients before the rule, and factors for each array of parameters, all off by default."""

    weight_decay: float
    rate_factors: Sequence[float] | None
    decay_factors: Sequence[float] | None
    clip_norm: float | None
    clip_value: float | None


class Optimizer:
    """Changes a module's parameters in place by its gradients.

    A `Sequential` whose parameters are one vector is one pair of `parameters` and `gradients`, so a step is a few
    operations whatever the number of layers; any other module is a pair for each of its arrays.

    Before the rule, in this order and without changing the module's own gradients, g is

    - clipped by the norm of all gradients together: `g ← g min(1, clip_norm / (‖g‖ + 10⁻⁶))`; Pascanu et al. 2013;
    - clipped by value: `g ← min(max(g, -clip_value), clip_value)`;
    - changed by L2 decay: `g ← g + weight_decay·w`.

    rate_factors, decay_factors: multiply the learning rate and the weight decay of each array of `module.parameters()`.
    `decay_scale` multiplies the weight decay of all, and may be set at any time.

    A subclass defines `update`, or a `step` of its own. An optimizer changes the arrays of one module, so it cannot be
    copied: make another for the copy of the module, and pass it the `state` of this one.
    """

    state_slots: tuple[str, ...] = ()  # names of what the rule remembers: arrays shaped like the parameters, first zero
    coefficient_names: ClassVar[tuple[str, ...]] = ("rate",)  # numbers in the rule that change between steps
    default_weight_decay: ClassVar[float] = 0.0
    gradient_scale = 1.0  # the factor that `scaled_step` expects in the gradients

    def __init__(self, module: Module, learning_rate: float = 0.01, **options: Unpack[OptimizerOptions]) -> None:
        self.module = module
        self.parameters, self.gradients = _trainable_arrays(module)
        self._addresses = _addresses(self.parameters)
        self.weight_decay = options.get("weight_decay", self.default_weight_decay)
        self.clip_norm, self.clip_value = options.get("clip_norm"), options.get("clip_value")
        self._check_positive(learning_rate=learning_rate, clip_norm=self.clip_norm, clip_value=self.clip_value)
        self._check("weight_decay", self.weight_decay >= 0, "a number of at least 0", self.weight_decay)
        given = {"rate_factors": options.get("rate_factors"), "decay_factors": options.get("decay_factors")}
        self._factors = {name: self._spread_factors(name, some) for name, some in given.items() if some is not None}
        self._decay_scale = 1.0
        self.steps = 0
        self._slots = {name: [aligned_zeros(w.shape, w.dtype) for w in self.parameters] for name in self.state_slots}
        self._coefficients: dict[str, dict[np.dtype[Any], Array]] = {
            name: {} for name in (*self.coefficient_names, "decay")
        }
        only_step = type(self).step is not Optimizer.step and type(self).update is Optimizer.update
        self._calls = [] if only_step else self._compile(self.update)
        self.learning_rate = learning_rate

    def update(self, w: Array, g: Array, *slots: Array, **coefficients: float) -> tuple[Array, ...]:
        """Return the new w and slots, all of one shape. The keyword arguments are the `coefficient_names`."""
        raise NotImplementedError(f"{type(self).__name__} has no step() and no update()")

    def coefficients(self) -> dict[str, float]:
        """Return the numbers that `update` takes in the next step."""
        return {"rate": self.learning_rate}

    @property
    def learning_rate(self) -> float:
        """The learning rate, which may be set at any time; the next step uses it."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        self.set_coefficients()
        self._set_decay()

    @property
    def decay_scale(self) -> float:
        """The factor of the weight decay, which may be set at any time; the next step uses it."""
        return self._decay_scale

    @decay_scale.setter
    def decay_scale(self, value: float) -> None:
        self._decay_scale = value
        self._set_decay()

    def decay(self) -> float:
        """Return the coefficient that `_decay` takes in the next step."""
        return self.weight_decay * self.decay_scale

    def set_coefficients(self) -> None:
        """Put the coefficients of the next step into the arrays that the calls read."""
        for name, value in self.coefficients().items():
            for array in self._coefficients[name].values():
                array[()] = value

    def step(self) -> None:
        """Change the parameters by the gradients."""
        self._run(self._calls)

    def scaled_step(self) -> None:
        """Step as `train` does, which multiplies the gradients by `gradient_scale` at no cost."""
        self.step()

    def zero_gradients(self) -> None:
        """Set the gradients, which accumulate (`+=`), back to zero."""
        for gradient in self.gradients:
            gradient.fill(0)

    def check(self, module: Module) -> None:
        """Raise ValueError if a step would not change `module`, or not the whole module of this optimizer."""
        if _addresses(_trainable_arrays(self.module)[0]) != self._addresses:
            problem = "found one whose parameters have moved into a newer network"
        elif module is self.module or not _memory_owners(module).isdisjoint(_memory_owners(self.module)):
            return
        else:
            problem = "found one of another module"
        raise ValueError(f"{type(self).__name__}: expected an optimizer of the module, {problem}; create it again")

    def state(self) -> dict[str, Array]:
        """Return copies of what a resumed training needs, by name."""
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._state_arrays().items()}}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Continue from the `state` of an optimizer of the same kind and module; ValueError if it does not fit."""
        expected = self._state_arrays()
        if state.keys() != {"steps", *expected}:
            raise ValueError(f"{type(self).__name__}.state: expected {['steps', *expected]}, found {list(state)}")
        for name, array in expected.items():
            found = state[name]
            if (found.dtype, found.shape) != (array.dtype, array.shape):
                location = f"{type(self).__name__}.state.{name}"
                raise ValueError(f"{location}: expected {array.dtype} {array.shape}, found {found.dtype} {found.shape}")
        steps = checked_count(state, "steps")
        for name, array in expected.items():
            array[...] = state[name]
        self.steps = steps

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name}: expected no copy, it changes one module; create a {name} for the other and call load_state()"
        )

    def _set_decay(self) -> None:
        for array in self._coefficients["decay"].values():
            array[()] = self.decay()

    def _run(self, calls: list[Call]) -> None:
        self.steps += 1
        for function, operands in calls:
            function(*operands)

    def _multiply_slots(self, **factors: float) -> None:
        for name, factor in factors.items():
            for array in self._slots.get(name, ()):
                array *= factor

    def _state_arrays(self) -> dict[str, Array]:
        return {f"{name}.{i}": array for name, arrays in self._slots.items() for i, array in enumerate(arrays)}

    def _spread_factors(self, name: str, factors: Sequence[float]) -> list[Array]:
        """Return a factor for each value of `parameters`: the module's arrays, or all of them in one vector."""
        arrays = self.module.parameters()
        valid = len(factors) == len(arrays) and all(factor >= 0 for factor in factors)
        self._check(name, valid, f"{len(arrays)} numbers of at least 0, one for each array of parameters", factors)
        spread = [np.full(w.shape, factor, w.dtype) for w, factor in zip(arrays, factors, strict=True)]
        if len(self.parameters) < len(arrays):
            spread = [np.concatenate([values.reshape(-1) for values in spread])]
        return spread

    def _regularize(self, w: Array, g: Array, clip: Array, decay: Array, factors: Array | None) -> tuple[Array, Array]:
        """Return w and g as the rule takes them; `clip` is the factor that clips the norm."""
        if self.clip_norm is not None:
            g = g * clip
        if self.clip_value is not None:
            g = np.maximum(np.minimum(g, self.clip_value), -self.clip_value)
        return self._decay(w, g, decay, factors) if self.weight_decay else (w, g)

    def _decay(self, w: Array, g: Array, decay: Array, factors: Array | None) -> tuple[Array, Array]:
        """Return w and g after the weight decay; `factors` multiply it for each value."""
        return w, g + decay * (w if factors is None else factors * w)

    def _compile(self, update: Callable[..., tuple[Array, ...]]) -> list[Call]:
        """Return the calls of a step: the norm of all gradients, then the rule, piece by piece."""
        calls, clips = self._norm_calls()
        for i, (w, g, clip) in enumerate(zip(self.parameters, self.gradients, clips, strict=True)):
            arrays = [np.atleast_1d(a) for a in (w, g, *(self._slots[name][i] for name in self.state_slots))]
            factors = {name: np.atleast_1d(spread[i]) for name, spread in self._factors.items()}
            length = len(arrays[0])
            size = min(_PIECE_VALUES, length) if w.ndim == 1 else max(1, length)
            scratch: dict[tuple[np.dtype[Any], int], Array] = {}
            for start in range(0, length, size):
                pieces = [array[start : start + size] for array in arrays]
                some = {name: array[start : start + size] for name, array in factors.items()}
                calls += self._compile_piece(update, pieces, some, clip, scratch, (size, *arrays[0].shape[1:]))
        return calls

    def _compile_piece(
        self,
        update: Callable[..., tuple[Array, ...]],
        arrays: list[Array],
        factors: Mapping[str, Array],
        clip: Array,
        scratch: dict[tuple[np.dtype[Any], int], Array],
        shape: tuple[int, ...],
    ) -> list[Call]:
        """Trace `update` for one piece of parameters, gradients and slots; pieces share their scratch arrays."""
        w, g, *slots = arrays

        def make(dtype: np.dtype[Any], number: int) -> Array:
            if (dtype, number) not in scratch:
                scratch[dtype, number] = aligned_zeros(shape, dtype)
            return scratch[dtype, number][: len(w)]

        tracer = Tracer(w, make, fill=False)
        values: list[Any] = [tracer.input(array, reusable=array is not g) for array in arrays]
        numbers: dict[str, Any] = {
            name: tracer.input(arrays_of.setdefault(w.dtype, scalar(0, w)))
            for name, arrays_of in self._coefficients.items()
        }
        decay, spread = numbers.pop("decay"), {name: tracer.input(array) for name, array in factors.items()}
        decayed, gradient = self._regularize(
            values[0],
            values[1],
            tracer.input(clip),  # type: ignore[arg-type]
            decay,
            spread.get("decay_factors"),  # type: ignore[arg-type]
        )
        if "rate_factors" in spread:
            numbers["rate"] = spread["rate_factors"] * numbers["rate"]
        results: Any = update(decayed, gradient, *values[2:], **numbers)
        for result, array in zip(results, (w, *slots), strict=True):
            tracer.output(result, array)
        return tracer.calls()

    def _norm_calls(self) -> tuple[list[Call], list[Array]]:
        """Return the calls that measure the norm of all gradients, and for each array of them the factor that clips."""
        clips = [scalar(1, g) for g in self.gradients]
        if self.clip_norm is None:
            return [], clips
        pieces = [
            g[start : start + _PIECE_VALUES] if g.ndim == 1 else g
            for g in self.gradients
            for start in range(0, len(g) if g.ndim == 1 else 1, _PIECE_VALUES)
        ]
        squares, ones = np.zeros(len(pieces)), np.ones(len(pieces))  # float64, whatever the type of the gradients
        # Two results take turns: NumPy takes 0.2 µs for one number, and 0.7 if the operand is the result.
        even, odd = np.zeros(()), np.zeros(())
        return [
            *(call_into(squares[i : i + 1], np.vdot, piece, piece) for i, piece in enumerate(pieces)),
            (squares.dot, (ones, even)),
            (np.sqrt, (even, odd)),
            (np.add, (odd, scalar(1e-6, odd), even)),
            (np.divide, (scalar(self.clip_norm, even), even, odd)),
            (partial(np.minimum, out=even), (odd, scalar(1, odd))),
            *((np.copyto, (clip, even, "same_kind")) for clip in clips),
        ], clips

    def _check_positive(self, **values: float | None) -> None:
        for name, value in values.items():
            self._check(name, value is None or value > 0, "a number above 0", value)

    def _check_fraction(self, **values: float) -> None:
        for name, value in values.items():
            self._check(name, 0 <= value < 1, "a number in [0, 1)", value)

    def _check(self, name: str, valid: bool, expected: str, found: object) -> None:
        if not valid:
            raise ValueError(f"{type(self).__name__}.{name}: expected {expected}, found {found}")


def _trainable_arrays(module: Module) -> tuple[list[Array], list[Array]]:
    """Return parameters and gradients, in as few arrays as possible."""
    if isinstance(module, Sequential):
        parameters, gradients = module.parameter_vector, module.gradient_vector
        if parameters is not None and gradients is not None:
            return [parameters], [gradients]
    return module.parameters(), module.gradients()


def _addresses(arrays: Sequence[Array]) -> list[tuple[int, int]]:
    return [(array.ctypes.data, array.nbytes) for array in arrays]


def _memory_owners(module: Module) -> set[int]:
    """Return the identities of the memory that holds the module's parameters."""
    return {id(array if array.base is None else array.base) for array in module.parameters()}
