"""Descent: what all optimizers share. A step is a rule for arrays of parameters w and their gradients g.

A rule's NumPy calls work in place, with operands that never move. They are written out once (see
model_store/nn/tape.py), and a step makes them, so it allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, SupportsIndex, TypedDict, Unpack

import numpy as np

from model_store.nn import Array, Module, Sequential
from model_store.nn.tape import Line, aligned_zeros, copied, scalar

# A long vector is stepped piece by piece, so that a piece stays in the cache from one call to the next. Measured, 6.3
# million parameters: SGD 6.1 ms instead of 7.7, Adam 14.8 instead of 20.8; from 16 to 128 thousand it matters little
# there. 84 thousand are better left whole: a step of 784-100-50-10 with a batch of one takes 36.4 µs, in quarters 38.2.
_PIECE = 98_304


class Optimizer:
    """Changes a module's parameters in place, by its gradients.

    A `Sequential` whose parameters are one vector is one pair of `parameters` and `gradients` here, so a step is a
    few operations whatever the number of layers; any other module is a pair for each of its arrays.

    It changes those arrays and no others, so it cannot be copied: a copy of the module has another optimizer made for
    it, which may go on from the `state` of this one.
    """

    learning_rate = 0.01
    scale = 1.0  # what `scaled_step` takes the gradients to have been multiplied by

    def __init__(self, module: Module) -> None:
        self.module = module
        self.parameters, self.gradients = _arrays_of(module)
        self._places = _places(self.parameters)

    def check(self, module: Module) -> None:
        """ValueError where a step would not change `module`, or not all of the module that this is an optimizer of."""
        if _places(_arrays_of(self.module)[0]) != self._places:
            problem = "found one whose parameters have moved into a network that was made of them since"
        elif module is self.module or not _owners(module).isdisjoint(_owners(self.module)):
            return
        else:
            problem = "found one of another module"
        raise ValueError(f"{type(self).__name__}: expected an optimizer of the module, {problem}: make it anew")

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name}: expected no copy, for it changes one module: make a {name} of the other and load_state()"
        )

    def step(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    def scaled_step(self) -> None:
        """The step of `train`, which multiplies the gradients by a number anyway: where `scale` is 1, `step`."""
        self.step()

    def zero_gradients(self) -> None:
        """Gradients accumulate (`+=`) until this sets them back to zero."""
        for gradient in self.gradients:
            gradient.fill(0)

    def state(self) -> dict[str, Array]:
        """What a training that is to be continued must keep, by name."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Goes on from a `state` kept before."""


def _arrays_of(module: Module) -> tuple[list[Array], list[Array]]:
    """Parameters and gradients, in as few arrays as may be."""
    if isinstance(module, Sequential):
        parameters, gradients = module.parameter_vector, module.gradient_vector
        if parameters is not None and gradients is not None:
            return [parameters], [gradients]
    return module.parameters(), module.gradients()


def _places(arrays: Sequence[Array]) -> list[tuple[int, int]]:
    return [(array.ctypes.data, array.nbytes) for array in arrays]


def _owners(module: Module) -> set[int]:
    """Of the memory that its parameters lie in."""
    return {id(array if array.base is None else array.base) for array in module.parameters()}


class Options(TypedDict, total=False):
    """What every `Descent` takes, all off by default."""

    weight_decay: float
    clip_norm: float | None
    clip_value: float | None


class Descent(Optimizer):
    """A step by a rule. Before the rule, in this order, and without a change to the module's own gradients, g is

    - clipped by the norm of all gradients together: `g ← g min(1, clip_norm / (‖g‖ + 10⁻⁶))`; Pascanu et al. 2013;
    - clipped by value: `g ← min(max(g, -clip_value), clip_value)`;
    - joined by the L2 decay: `g ← g + weight_decay·w`.
    """

    memory: tuple[str, ...] = ()  # names of what the rule remembers: arrays shaped like the parameters, first zero

    def __init__(self, module: Module, learning_rate: float, **options: Unpack[Options]) -> None:
        super().__init__(module)
        self.weight_decay = options.get("weight_decay", 0.0)
        self.clip_norm, self.clip_value = options.get("clip_norm"), options.get("clip_value")
        self._positive(learning_rate=learning_rate, clip_norm=self.clip_norm, clip_value=self.clip_value)
        self._check("weight_decay", self.weight_decay >= 0, "a number of at least 0", self.weight_decay)
        self.steps = 0
        self._memory = {name: [aligned_zeros(w.shape, w.dtype) for w in self.parameters] for name in self.memory}
        self._operands: dict[str, dict[np.dtype[Any], Array]] = {}
        self._lines = self._written(self.rule)
        self.learning_rate = learning_rate

    def rule(self, w: Array, g: Array, s: Array, *memory: Array) -> list[Line]:
        """The calls that change `w` by `g` and `memory`, but not `g`; `s` is room to calculate in.

        All have one shape.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rule()")

    @property
    def learning_rate(self) -> float:
        """May be set at any time; the next step takes it."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        self.tune()

    def tune(self) -> None:
        """Sets the operands that follow from the learning rate."""
        self.assign(rate=self.learning_rate)

    def operand(self, name: str, like: Array) -> Array:
        """A number in the rule that may change from step to step, by `assign`; one for each type of number."""
        return self._operands.setdefault(name, {}).setdefault(like.dtype, scalar(0, like))

    def assign(self, **values: float) -> None:
        """Gives operands their values, from the next step on."""
        for name, value in values.items():
            for operand in self._operands.get(name, {}).values():
                operand[...] = value

    def step(self) -> None:
        self.steps += 1
        for function, operands in self._lines:
            function(*operands)

    def state(self) -> dict[str, Array]:
        return {"steps": np.array(self.steps), **{name: array.copy() for name, array in self._kept().items()}}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Goes on from the `state` of an optimizer of the same kind and module; ValueError where it does not fit."""
        kept = self._kept()
        if state.keys() != {"steps", *kept}:
            raise ValueError(f"{type(self).__name__}.state: expected {['steps', *kept]}, found {list(state)}")
        for name, array in kept.items():
            found = state[name]
            if (found.dtype, found.shape) != (array.dtype, array.shape):
                location = f"{type(self).__name__}.state.{name}"
                raise ValueError(f"{location}: expected {array.dtype} {array.shape}, found {found.dtype} {found.shape}")
        for name, array in kept.items():
            array[...] = state[name]
        self.steps = int(state["steps"])

    def _kept(self) -> dict[str, Array]:
        return {f"{name}.{i}": array for name, arrays in self._memory.items() for i, array in enumerate(arrays)}

    def _written(self, rule: Callable[..., list[Line]]) -> list[Line]:
        """The calls of a step: the norm of all gradients first, then the rest, piece by piece."""
        lines, scales = self._norm()
        for i, (w, g, scale) in enumerate(zip(self.parameters, self.gradients, scales, strict=True)):
            arrays = [np.atleast_1d(a) for a in (w, g, *(self._memory[name][i] for name in self.memory))]
            length = len(arrays[0])
            size = min(_PIECE, length) if w.ndim == 1 else max(1, length)
            rooms = [aligned_zeros((size, *w.shape[1:]), w.dtype) for _ in range(2)]
            for start in range(0, length, size):
                piece, gradient, *memory = (array[start : start + size] for array in arrays)
                room, s = (array[: len(piece)] for array in rooms)
                prepared, gradient = self._prepared(piece, gradient, room, s, scale)
                lines += [*prepared, *rule(piece, gradient, s, *memory)]
        return lines

    def _norm(self) -> tuple[list[Line], list[Array]]:
        """The calls that measure the norm, and for each array of gradients the scale that clips it."""
        scales = [scalar(1, g) for g in self.gradients]
        if self.clip_norm is None:
            return [], scales
        squares, norm = np.zeros(len(scales)), np.zeros(())
        return [
            *(copied(np.vdot, g, g, out=squares[i : i + 1]) for i, g in enumerate(self.gradients)),
            (partial(np.add.reduce, out=norm), (squares,)),
            (np.sqrt, (norm, norm)),
            (np.add, (norm, scalar(1e-6, norm), norm)),
            (np.divide, (scalar(self.clip_norm, norm), norm, norm)),
            (partial(np.minimum, out=norm), (norm, scalar(1, norm))),
            *((np.copyto, (scale, norm, "same_kind")) for scale in scales),
        ], scales

    def _prepared(self, w: Array, g: Array, room: Array, s: Array, scale: Array) -> tuple[list[Line], Array]:
        """The calls that clip and decay, and the array that the gradients then are in."""
        lines: list[Line] = []
        if self.clip_norm is not None:
            lines.append((np.multiply, (g, scale, room)))
            g = room
        if self.clip_value is not None:
            lines.append((partial(np.minimum, out=room), (g, scalar(self.clip_value, g))))
            lines.append((partial(np.maximum, out=room), (room, scalar(-self.clip_value, g))))
            g = room
        if self.weight_decay:
            decayed, g = self.decayed(w, g, room, s)
            lines += decayed
        return lines, g

    def decayed(self, w: Array, g: Array, room: Array, s: Array) -> tuple[list[Line], Array]:
        """The calls of the weight decay, and the array that the gradients then are in."""
        lines: list[Line] = [(np.multiply, (w, scalar(self.weight_decay, w), s)), (np.add, (g, s, room))]
        return lines, room

    def _positive(self, **values: float | None) -> None:
        for name, value in values.items():
            self._check(name, value is None or value > 0, "a number above 0", value)

    def _shares(self, **values: float) -> None:
        for name, value in values.items():
            self._check(name, 0 <= value < 1, "a number in [0, 1)", value)

    def _check(self, name: str, right: bool, expected: str, found: float | None) -> None:
        if not right:
            raise ValueError(f"{type(self).__name__}.{name}: expected {expected}, found {found}")
